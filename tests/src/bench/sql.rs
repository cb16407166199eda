//! Whether a server that speaks SQL, or a proxy before one, carries out a statement.

use anyhow::{Context, Result, bail};
use config::Engine;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// Longer than a healthy server or proxy takes, short enough to ask again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether it does, as the administrator.
pub(crate) async fn answers(engine: Engine, server: SocketAddr) -> Result<()> {
    run(engine, server, "SELECT 1").await
}

/// Carries out one statement, as the administrator.
pub(crate) async fn run(engine: Engine, server: SocketAddr, sql: &str) -> Result<()> {
    let (host, port) = (server.ip().to_string(), server.port());
    let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    let done = async {
        match engine {
            Engine::Postgres => {
                let options = PgConnectOptions::new_without_pgpass().host(&host).port(port).username("postgres");
                let mut client = options.ssl_mode(PgSslMode::Disable).database("postgres").connect().await?;
                statement.execute(&mut client).await?;
            }
            Engine::Mariadb => {
                let options = MySqlConnectOptions::new().host(&host).port(port).username("root");
                let mut client = options.ssl_mode(MySqlSslMode::Disabled).connect().await?;
                statement.execute(&mut client).await?;
            }
            Engine::Redis => bail!("Redis does not speak SQL"),
        }
        Ok(())
    };
    timeout(PATIENCE, done).await.with_context(|| format!("{server} did not answer within {PATIENCE:?}"))?
}
