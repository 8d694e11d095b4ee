//! Pages of a list, whatever the order in which a store lists.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::{ObjectMeta, Result};

/// The first so many objects by their names, of those that `parse` knows. Memory is bounded by the page.
pub(crate) async fn first_of<T>(
    mut listed: BoxStream<'static, Result<ObjectMeta>>,
    limit: usize,
    is_ordered: bool,
    parse: impl Fn(&ObjectMeta) -> Option<T>,
) -> Result<Vec<T>> {
    let mut first = BTreeMap::new();
    while first.len() < limit || !is_ordered {
        let Some(meta) = listed.try_next().await? else {
            break;
        };
        if let Some(parsed) = parse(&meta) {
            first.insert(meta.location, parsed);
        }
        if first.len() > limit {
            first.pop_last();
        }
    }
    Ok(first.into_values().collect())
}
