//! Both ends over loopback: answers, refusals, broken connections, limits.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::serve::ListenerExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Echo {
    handled: AtomicUsize,
}

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match route {
            "echo/a" => Some(body),
            "slow" => {
                tokio::time::sleep(SECOND * 5).await;
                Some(body)
            }
            "panic" => panic!("a bug"),
            _ => None,
        }
    }
}

async fn serve(handler: Arc<Echo>) -> (Address, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(format!("http://{}", listener.local_addr().unwrap()));
    let router = internal_router(handler);
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

#[tokio::test]
async fn bytes_go_there_and_come_back() {
    let (address, _server) = serve(Arc::default()).await;
    let transport = HttpTransport::new().unwrap();
    for body in [Bytes::new(), Bytes::from_static(&[0, 255, 10, 13]), Bytes::from(vec![7; 9 << 20])] {
        assert_eq!(transport.call(&address, "echo/a", body.clone(), SECOND * 5).await, Ok(body));
    }
    let with_slash = Address(format!("{address}/"));
    assert_eq!(transport.call(&with_slash, "echo/a", "x".into(), SECOND).await, Ok("x".into()));
}

#[tokio::test]
async fn what_was_certainly_not_carried_out_is_unreachable() {
    let (address, _server) = serve(Arc::default()).await;
    let transport = HttpTransport::new().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (to, route) in [
        (address.clone(), "nothing"),
        (Address(format!("http://{free}")), "echo/a"),
        (Address("local:x".into()), "echo/a"),
        (Address("not an address".into()), "echo/a"),
    ] {
        let answer = transport.call(&to, route, "x".into(), SECOND).await;
        assert!(matches!(answer, Err(TransportError::Unreachable(..))), "{to}: {answer:?}");
    }
    let large = Bytes::from(vec![0; INTERNAL_BODY_BYTES_MAX + 1]);
    let answer = transport.call(&address, "echo/a", large, SECOND * 5).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn a_process_that_is_starting_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(format!("http://{}", listener.local_addr().unwrap()));
    let router = Router::new().fallback(|| async { (StatusCode::SERVICE_UNAVAILABLE, "starting") });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let answer = HttpTransport::new().unwrap().call(&address, "echo/a", "x".into(), SECOND).await;
    assert!(matches!(&answer, Err(TransportError::Unreachable(_, why)) if why.contains("starting")), "{answer:?}");
}

#[tokio::test]
async fn what_may_have_been_carried_out_is_unknown() {
    let (address, _server) = serve(Arc::default()).await;
    let transport = HttpTransport::new().unwrap();
    for route in ["slow", "panic"] {
        let answer = transport.call(&address, route, "x".into(), Duration::from_millis(100)).await;
        assert!(matches!(answer, Err(TransportError::Unknown(..))), "{route}: {answer:?}");
    }
    assert_eq!(transport.call(&address, "echo/a", "x".into(), SECOND).await, Ok("x".into()), "it goes on");
}

#[tokio::test]
async fn a_process_that_only_listens_is_unknown_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(format!("http://{}", listener.local_addr().unwrap()));
    let began = Instant::now();
    let transport = HttpTransport::new().unwrap();
    let answer = transport.call(&address, "echo/a", "x".into(), Duration::from_millis(200)).await;
    assert!(matches!(answer, Err(TransportError::Unknown(..))), "{answer:?}");
    assert!(began.elapsed() < SECOND);
}

/// Reads one request, head and body.
async fn take_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\nx") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ny";
        let (mut first, _) = listener.accept().await.unwrap();
        take_request(&mut first).await;
        first.write_all(answer).await.unwrap();
        // The second request on it arrives, and the process is gone before it answers.
        take_request(&mut first).await;
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        take_request(&mut second).await;
        second.write_all(answer).await.unwrap();
        tokio::time::sleep(SECOND).await;
    });
    let transport = HttpTransport::new().unwrap();
    for _ in 0..2 {
        assert_eq!(transport.call(&address, "echo/a", "x".into(), SECOND).await, Ok("y".into()));
    }
}

#[tokio::test]
async fn a_process_that_dies_over_a_request_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // From here on nobody can connect any more, which must not make it look as if nothing had been carried out.
        drop(listener);
        take_request(&mut stream).await;
    });
    let answer = HttpTransport::new().unwrap().call(&address, "echo/a", "x".into(), SECOND).await;
    assert!(matches!(&answer, Err(TransportError::Unknown(..))), "{answer:?}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        take_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await.unwrap();
        tokio::time::sleep(SECOND * 3).await;
    });
    let answer = HttpTransport::new().unwrap().call(&address, "echo/a", "x".into(), SECOND).await;
    assert!(matches!(&answer, Err(TransportError::Unknown(_, why)) if why.contains("larger")), "{answer:?}");
}
