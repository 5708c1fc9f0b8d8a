//! What `orlop check` has to say: one finding for each thing that was looked at.

use serde::Serialize;

/// What a finding comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It is as it should be.
    Good,
    /// It is not known, which is not the same as good.
    Unknown,
    /// It works, and something can be lost or stand still that need not.
    Warning,
    /// It does not work, or will not.
    Problem,
}

impl Verdict {
    pub(crate) const ALL: [Self; 4] = [Self::Good, Self::Unknown, Self::Warning, Self::Problem];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// What was looked at; for programs, so it stays the same.
    pub(crate) check: &'static str,
    /// The node that it is about, or else the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    pub(crate) verdict: Verdict,
    /// What is so.
    pub(crate) says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
    /// All that it is about, where there may be many: `says` names the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) names: Vec<String>,
}

impl Finding {
    pub(crate) fn new(check: &'static str, verdict: Verdict, says: impl Into<String>) -> Self {
        Self { check, node: None, verdict, says: says.into(), next: None, names: Vec::new() }
    }

    pub(crate) fn good(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, says)
    }

    pub(crate) fn unknown(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, says)
    }

    pub(crate) fn warning(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, says)
    }

    pub(crate) fn problem(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, Verdict::Problem, says)
    }

    /// What was good when it was last told, and is told no more.
    pub(crate) fn doubt(mut self, why: &str) -> Self {
        if self.verdict == Verdict::Good {
            self.verdict = Verdict::Unknown;
            self.says = format!("{why}; its last word: {}", self.says);
        }
        self
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn of_node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// With all names in order, of which the first few are said.
    pub(crate) fn names(mut self, mut names: Vec<String>) -> Self {
        names.sort();
        self.says = format!("{}: {}", self.says, few(&names));
        self.names = names;
        self
    }
}

/// How many names are said before the rest is only counted.
const FEW: usize = 5;

/// `a, b, c`, or the first of them and how many there are besides.
pub(crate) fn few(names: &[String]) -> String {
    match names.len().checked_sub(FEW) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..FEW].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted_and_few_are_said() {
        let names = |count: usize| (0..count).map(|i| format!("n{i}")).collect::<Vec<_>>();
        for (count, said) in [(0, ""), (2, "n0, n1"), (5, "n0, n1, n2, n3, n4"), (7, "n0, n1, n2, n3, n4 and 2 more")] {
            assert_eq!(few(&names(count)), said);
        }
        let finding = Finding::warning("replicas", "one replica").names(vec!["b".into(), "a".into()]);
        assert_eq!((finding.says.as_str(), finding.names.len()), ("one replica: a, b", 2));
    }
}
