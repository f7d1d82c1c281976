//! wip
use crate::config::*;
pub(crate) fn run(args: &DevArgs) -> anyhow::Result<()> {
    let c = DevConfig::load(args)?;
    crate::logging::start(&c.log, c.log_format)?;
    let d = crate::data_dir::DataDir::open(&c.data_dir)?;
    println!("{:?} {:?} {:?}", d.coordinator(), d.node_names(c.nodes)?, c);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(crate::demo::run(&c.listen))
}
