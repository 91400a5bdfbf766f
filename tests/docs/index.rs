//! docs/README.md leads to every file, and no link leads nowhere.

use super::{complain, files, read, root};

/// Where the Markdown text links to, without places in other people's hands.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = |target: &&str| !target.contains("://") && !target.starts_with('#');
    targets.filter(local).filter_map(|target| target.split('#').next()).collect()
}

#[test]
fn index_names_every_document() {
    let index = read("docs/README.md");
    let listed = links(&index);
    let mut complaints = Vec::new();
    for file in files(&root().join("docs"), "md") {
        let name = file.strip_prefix(root().join("docs")).expect("it is below");
        let name = name.display().to_string();
        if name != "README.md" && !listed.contains(&name.as_str()) {
            complaints.push(format!("docs/README.md does not name {name}"));
        }
    }
    complain(complaints);
}

#[test]
fn links_lead_to_files() {
    let mut texts = files(&root().join("docs"), "md");
    texts.push(root().join("README.md"));
    let mut complaints = Vec::new();
    for file in texts {
        let text = std::fs::read_to_string(&file).expect("it is text");
        let folder = file.parent().expect("it is in a folder");
        for link in links(&text) {
            if !folder.join(link).exists() {
                complaints.push(format!("{}: {link} is not there", file.display()));
            }
        }
    }
    complain(complaints);
}
