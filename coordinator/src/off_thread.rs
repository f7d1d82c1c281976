//! Work that takes long, off the runtime's threads.

use vicinal_common::error::Error;
use vicinal_common::exec;

/// Runs `work` on a thread that may block; in a simulation here. A panic goes on in the caller.
pub(crate) async fn off_thread<U: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<U, E> + Send + 'static,
) -> Result<U, E> {
    if exec::is_simulated() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Unavailable("the server is shutting down".into()).into()),
    }
}
