//! Pages of a list, whatever the order in which a store lists.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::{ObjectMeta, Result};

/// The first so many objects by their names. Memory is bounded by the page.
pub(crate) async fn first_of(
    mut listed: BoxStream<'static, Result<ObjectMeta>>,
    limit: usize,
    is_ordered: bool,
) -> Result<Vec<ObjectMeta>> {
    let mut first = BTreeMap::new();
    while first.len() < limit || !is_ordered {
        let Some(meta) = listed.try_next().await? else {
            break;
        };
        first.insert(meta.location.clone(), meta);
        if first.len() > limit {
            first.pop_last();
        }
    }
    Ok(first.into_values().collect())
}
