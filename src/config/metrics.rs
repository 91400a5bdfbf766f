//! `[metrics]`: where a monitoring system may ask.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where metrics are served over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsListen {
    /// A socket file, which the backend makes.
    Unix(PathBuf),
    /// An address of this host's own.
    Tcp(SocketAddr),
}

/// Not a place to serve metrics at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsListenError {
    /// Neither of the two forms.
    #[error("`{0}` is neither unix:/path nor an address with a port, such as 127.0.0.1:9750")]
    Form(String),
    /// Others could ask as well.
    #[error(
        "{0} can be reached from other hosts: there is no password and no encryption here, so \
         only 127.0.0.0/8 and [::1] are allowed; put a proxy that has them in front"
    )]
    NotLoopback(SocketAddr),
}

impl FromStr for MetricsListen {
    type Err = MetricsListenError;

    fn from_str(text: &str) -> Result<Self, MetricsListenError> {
        let form = || MetricsListenError::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(MetricsListen::Unix(path)) } else { Err(form()) };
        }
        let address: SocketAddr = text.parse().map_err(|_| form())?;
        if address.ip().is_loopback() {
            Ok(MetricsListen::Tcp(address))
        } else {
            Err(MetricsListenError::NotLoopback(address))
        }
    }
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricsListen::Unix(path) => write!(f, "unix:{}", path.display()),
            MetricsListen::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_takes_a_file_or_an_address_of_this_host() {
        for text in ["unix:/run/x/metrics", "127.0.0.1:9750", "127.3.2.1:0", "[::1]:9750"] {
            let listen: MetricsListen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn listen_refuses_what_others_could_reach() {
        for text in ["0.0.0.0:9750", "[::]:9750", "192.0.2.1:9750"] {
            let error = text.parse::<MetricsListen>().unwrap_err();
            assert!(matches!(error, MetricsListenError::NotLoopback(_)), "{error}");
        }
        for text in ["", "9750", "unix:relative", "localhost:9750", "127.0.0.1", "/run/metrics"] {
            let error = text.parse::<MetricsListen>().unwrap_err();
            assert!(matches!(error, MetricsListenError::Form(_)), "{error}");
        }
    }
}
