//! Names of paths: those that a wrong one may have meant.

/// How alike two names must be (Jaro-Winkler, 1 is the same) to be worth a hint.
const ALIKE: f64 = 0.7;
/// Hints at most.
const HINTS_MAX: usize = 3;

/// What to say after "there is no such path": the names that are most like it, or all of them
/// where there are few.
pub fn hint(wrong: &str, names: &[String]) -> String {
    let wrong = wrong.to_lowercase();
    let mut near: Vec<(f64, &String)> = names
        .iter()
        .map(|name| (strsim::jaro_winkler(&wrong, &name.to_lowercase()), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.truncate(HINTS_MAX);
    let list =
        |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    match (near.is_empty(), names.len()) {
        (_, 0) => "; there are no paths".to_owned(),
        (false, _) => {
            format!("; did you mean {}?", list(near.into_iter().map(|(_, name)| name).collect()))
        }
        (true, 1..=8) => format!("; the paths are {}", list(names.iter().collect())),
        (true, count) => format!("; \"mpathctl paths\" lists all {count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_names_the_most_alike_first() {
        let names: Vec<String> = ["array-a:1", "array-a:2", "array-b:1", "null:1G"]
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        assert_eq!(hint("Array-b:2", &names), "; did you mean array-a:2, array-b:1, array-a:1?");
        assert_eq!(hint("qqq", &names), "; the paths are array-a:1, array-a:2, array-b:1, null:1G");
        assert_eq!(hint("x", &[]), "; there are no paths");
        let many: Vec<String> = (0..9).map(|at| format!("port-{at}")).collect();
        assert_eq!(hint("qqq", &many), "; \"mpathctl paths\" lists all 9");
    }
}
