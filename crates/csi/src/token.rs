//! Pages of lists.
//!
//! A token names the last one that was told; the next page begins after it, whatever was made or deleted meanwhile. So no token is ever out of date, and one
//! that this driver has not given is noticed.

use tonic::Status;

const BEGINS: &str = "after.";

/// One page, and the token of the next.
pub(crate) fn page<T>(
    all: Vec<T>,
    id: impl Fn(&T) -> &str,
    most: i32,
    token: &str,
) -> Result<(Vec<T>, String), Status> {
    let most = match usize::try_from(most) {
        Ok(0) => usize::MAX,
        Ok(most) => most,
        Err(_) => return Err(Status::invalid_argument(format!("max_entries is {most}, and must not be negative"))),
    };
    let after = match token {
        "" => None,
        token => Some(parse(token).ok_or_else(|| {
            Status::aborted(format!(
                "starting_token {token:.60?} was not given by this driver; list from the beginning"
            ))
        })?),
    };
    let mut rest = all.into_iter().filter(|one| after.as_deref().is_none_or(|after| id(one) > after));
    let mut page: Vec<T> = Vec::new();
    for one in rest.by_ref() {
        if page.len() == most {
            let last = page.last().map(|last| give(id(last))).unwrap_or_default();
            return Ok((page, last));
        }
        page.push(one);
    }
    Ok((page, String::new()))
}

fn give(id: &str) -> String {
    let digits: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{BEGINS}{digits}")
}

fn parse(token: &str) -> Option<String> {
    let digits = token.strip_prefix(BEGINS).filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2))?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(all: &[&'static str], most: i32, token: &str) -> (Vec<&'static str>, String) {
        page(all.to_vec(), |one| one, most, token).unwrap()
    }

    #[test]
    fn every_page_goes_on_where_the_last_has_ended_whatever_happened_meanwhile() {
        let (first, token) = list(&["a", "b", "c", "d"], 2, "");
        assert_eq!(first, ["a", "b"]);
        assert_eq!(list(&["aa", "bb", "c", "d"], 2, &token), (vec!["bb", "c"], give("c")));
        assert_eq!(list(&["c", "d"], 2, &token), (vec!["c", "d"], String::new()));
        assert_eq!(list(&["a", "b"], 0, ""), (vec!["a", "b"], String::new()));
    }

    #[test]
    fn what_was_not_given_is_noticed() {
        for wrong in ["invalid-token", "after.", "after.6", "after.zz", "after.ff", "after.+1"] {
            let refused = page(vec!["a"], |one| one, 0, wrong).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Aborted, "{wrong}");
        }
        assert_eq!(page(vec!["a"], |one| one, -1, "").unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
