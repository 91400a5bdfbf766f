//! Shell completion: clap's script, and for bash the names of paths, asked of the backends that run.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell as ClapShell;

use crate::Cli;

/// A shell that there is a script for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// With the names of paths.
    Bash,
    /// Commands and options.
    Zsh,
    /// Commands and options.
    Fish,
}

/// Goes behind clap's script. Bash cuts words at colons, which path names have, so words are cut
/// here, and what bash has already is taken off the answer. clap's own engine for this is not
/// stable yet.
const BASH_PATHS: &str = r#"
_mpathctl_with_paths() {
    local line=${COMP_LINE:0:COMP_POINT} command='' socket=() words=() given=0 index word name
    read -ra words <<<"$line"
    local current=''
    if [[ $line != *[[:space:]] ]]; then
        current=${words[-1]}
        unset 'words[-1]'
    fi
    for ((index = 1; index < ${#words[@]}; index++)); do
        word=${words[index]}
        case $word in
            -s | --socket)
                index=$((index + 1))
                socket=(-s "${words[index]}")
                ;;
            --socket=*) socket=(-s "${word#*=}") ;;
            -*) ;;
            *) if [ -z "$command" ]; then command=$word; else given=$((given + 1)); fi ;;
        esac
    done
    case $command in
        why | fail | reinstate | remove | inject | clear) ;;
        *) given=1 ;;
    esac
    # The word after -s is a file, and what begins with a dash an option.
    if [ "$given" != 0 ] || [[ $current == -* || ${words[-1]} == -s || ${words[-1]} == --socket ]]; then
        _mpathctl "$@"
        return
    fi
    local cut=${current%"${current##*[:=]}"}
    COMPREPLY=()
    while IFS= read -r name; do
        printf -v name %q "$name"
        [[ $name == "$current"* ]] && COMPREPLY+=("${name#"$cut"}")
    done < <("${COMP_WORDS[0]}" "${socket[@]}" paths --names 2>/dev/null)
}

complete -F _mpathctl_with_paths -o nosort -o bashdefault -o default mpathctl
"#;

/// Prints the script.
pub fn print(shell: Shell, out: &mut dyn Write) -> std::io::Result<u8> {
    let kind = match shell {
        Shell::Bash => ClapShell::Bash,
        Shell::Zsh => ClapShell::Zsh,
        Shell::Fish => ClapShell::Fish,
    };
    // Into memory first: clap panics where a pipe has been closed.
    let mut script = Vec::new();
    clap_complete::generate(kind, &mut Cli::command(), "mpathctl", &mut script);
    out.write_all(&script)?;
    if shell == Shell::Bash {
        out.write_all(BASH_PATHS.as_bytes())?;
    }
    Ok(0)
}
