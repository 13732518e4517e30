//! Runs the blog in this process: one for all tests of a binary, since its cache is that of every
//! cached function.

use std::net::SocketAddr;
use std::sync::mpsc;

use blog::App;

/// Starts the blog in its own thread and returns its address.
pub(crate) fn serve<F: Future<Output = App>>(app: impl FnOnce() -> F + Send + 'static) -> SocketAddr {
    let (started, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let app = app().await;
            started.send(listener.local_addr().unwrap()).unwrap();
            app.serve(listener, std::future::pending()).await.unwrap();
        });
    });
    address.recv().unwrap()
}
