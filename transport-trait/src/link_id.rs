use std::fmt;

/// Names one link of one endpoint, for as long as the endpoint lives.
///
/// Made by the transport, which counts up: of two links the later one has the greater id, whoever is
/// at the other end. An id means nothing to another endpoint; the two ends of a link may name it
/// differently.
///
/// # Examples
///
/// ```
/// use leno_transport_trait::LinkId;
///
/// let (before, after) = (LinkId(6), LinkId(7));
/// assert!(before < after);
/// assert_eq!(after.to_string(), "7");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
