//! Listing all objects of a kind page by page, each once, in the order of their names, in memory that does not grow with their
//! number.
//!
//! The API server keeps objects sorted by namespace and name, and a list of one namespace comes in the order of names. That
//! order is what makes an expired page token harmless: the list starts again, and all up to the last name seen are passed over.

use kube::api::ListParams;
use serde_json::Value;

use crate::{
    access::{Access, Listed, Page},
    catalog::Kind,
    failure::Failure,
    json,
};

/// Objects asked for in the first page, when their size is not known: at the largest that etcd takes (1.5 MiB each), 30 MiB.
const FIRST_PAGE: u32 = 20;
/// Objects asked for in a page at most. The server counts objects, not bytes, and many large ones may follow many small ones: at the
/// largest that etcd takes, 48 MiB. Larger pages would save little time.
const LARGEST_PAGE: u32 = 32;
/// The size that pages are aimed at, in bytes of JSON; in memory it is some four times as much.
const PAGE_BYTES: usize = 4 << 20;
/// How often a list may lose its place. A token lives five minutes at least, so this is over half a day for one kind in one namespace.
const MOST_EXPIRIES: u32 = 150;

/// A list under way.
pub(crate) struct Pager {
    path: String,
    api_version: String,
    kind: String,
    params: ListParams,
    /// The name of the last object that was given out.
    last: Option<String>,
    pages: u32,
    expiries: u32,
    finished: bool,
}

impl Pager {
    /// Starts a list of a kind in a namespace, or in cluster scope.
    pub(crate) fn new(kind: &Kind, namespace: Option<&str>, label_selector: Option<&str>) -> Self {
        Self {
            path: kind.path(&kind.version, namespace),
            api_version: kind.api_version(),
            kind: kind.kind.clone(),
            params: ListParams {
                label_selector: label_selector.map(Into::into),
                limit: Some(FIRST_PAGE),
                ..ListParams::default()
            },
            last: None,
            pages: 0,
            expiries: 0,
            finished: false,
        }
    }

    /// The next objects; none after the last.
    pub(crate) async fn next(&mut self, access: &Access) -> Result<Option<Vec<Value>>, Failure> {
        while !self.finished {
            match access.page(&self.path, &self.params).await? {
                Listed::Page(page) => return self.take(page).map(Some),
                Listed::Expired(offered) => {
                    self.expiries += 1;
                    if self.expiries > MOST_EXPIRIES {
                        return Err(Failure::passing("the list loses its place again and again"));
                    }
                    tracing::debug!(path = self.path, "a page token expired");
                    self.params.continue_token = offered;
                }
            }
        }
        Ok(None)
    }

    fn take(&mut self, page: Page) -> Result<Vec<Value>, Failure> {
        self.params.limit = Some(next_limit(self.params.limit.unwrap_or(FIRST_PAGE), page.items.len(), page.bytes));
        self.finished = page.next.is_none();
        self.params.continue_token = page.next;
        self.pages += 1;
        let mut items = page.items;
        if self.pages == 1 && self.finished {
            // All of it: servers of aggregated APIs may list in any order.
            items.sort_by(|a, b| name(a).cmp(name(b)));
        }
        if !items.is_sorted_by(|a, b| name(a) < name(b)) {
            return Err(Failure::lasting(
                "its server lists it in no order, so that objects could be lost between pages",
            ));
        }
        if let Some(last) = &self.last {
            items.retain(|item| name(item) > last.as_str());
        }
        if let Some(item) = items.last() {
            self.last = Some(name(item).to_owned());
        }
        for item in &mut items {
            json::set(item, &["apiVersion"], self.api_version.as_str().into());
            json::set(item, &["kind"], self.kind.as_str().into());
        }
        Ok(items)
    }
}

impl Access {
    /// Shows every object of a kind of cluster scope; gives the server's answer if it does not list them.
    pub(crate) async fn each(&self, kind: &Kind, mut show: impl FnMut(Value)) -> Result<Option<Failure>, Failure> {
        let mut pager = Pager::new(kind, None, None);
        loop {
            match pager.next(self).await {
                Ok(Some(page)) => page.into_iter().for_each(&mut show),
                Ok(None) => return Ok(None),
                Err(failure) if failure.was_answered() => return Ok(Some(failure)),
                Err(failure) => return Err(failure),
            }
        }
    }
}

fn name(object: &Value) -> &str {
    json::text(object, &["metadata", "name"])
}

/// The size of the next page, from what the last one held: aimed at [`PAGE_BYTES`], and at most four times the last.
fn next_limit(limit: u32, items: usize, bytes: usize) -> u32 {
    let Some(item_bytes) = bytes.checked_div(items) else {
        return limit;
    };
    let fitting = u32::try_from(PAGE_BYTES / item_bytes.max(1)).unwrap_or(u32::MAX);
    fitting.min(limit.saturating_mul(4)).clamp(1, LARGEST_PAGE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pager() -> Pager {
        let kind = Kind {
            group: String::new(),
            version: "v1".into(),
            versions: vec!["v1".into()],
            kind: "Secret".into(),
            plural: "secrets".into(),
            namespaced: true,
            readable: true,
            creatable: true,
        };
        Pager::new(&kind, Some("shop"), None)
    }

    fn page(names: &[&str], next: Option<&str>) -> Page {
        let items = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        Page { items, next: next.map(Into::into), bytes: 100 }
    }

    fn take(pager: &mut Pager, page: Page) -> Vec<String> {
        let items = pager.take(page).expect("sorted");
        items.iter().map(|item| name(item).to_owned()).collect()
    }

    #[test]
    fn a_list_that_starts_again_neither_loses_nor_doubles() {
        let mut pager = pager();
        assert_eq!(take(&mut pager, page(&["a", "b"], Some("t"))), ["a", "b"]);
        pager.params.continue_token = None; // expired
        assert_eq!(take(&mut pager, page(&["a", "aa", "b", "c"], Some("t"))), ["c"]);
        assert_eq!(take(&mut pager, page(&["d"], None)), ["d"]);
        assert!(pager.finished);
    }

    #[test]
    fn a_whole_list_in_any_order_is_sorted_and_pages_in_no_order_are_refused() {
        assert_eq!(take(&mut pager(), page(&["b", "a"], None)), ["a", "b"]);
        assert!(pager().take(page(&["b", "a"], Some("t"))).is_err());
        assert!(pager().take(page(&["a", "a"], Some("t"))).is_err());
    }

    #[test]
    fn objects_say_what_they_are() {
        let items = pager().take(page(&["a"], None)).expect("sorted");
        assert_eq!(items[0], json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}));
    }

    #[test]
    fn pages_follow_the_size_of_objects() {
        assert_eq!(next_limit(4, 4, 4_000), 16, "small objects: four times as many");
        assert_eq!(next_limit(16, 16, 16_000), LARGEST_PAGE);
        assert_eq!(next_limit(32, 32, 32 << 20), 4, "1 MiB each");
        assert_eq!(next_limit(4, 4, 64 << 20), 1, "never none");
        assert_eq!(next_limit(20, 0, 100), 20, "an empty page tells nothing");
    }

    #[test]
    fn no_page_is_larger_than_some_tens_of_mebibytes() {
        // Small objects for long, then nothing but the largest that there can be.
        let (mut limit, largest_object) = (FIRST_PAGE, 3 << 19);
        for _ in 0..10 {
            limit = next_limit(limit, limit as usize, limit as usize * 100);
        }
        assert!(limit as usize * largest_object <= 48 << 20, "{limit} objects");
    }
}
