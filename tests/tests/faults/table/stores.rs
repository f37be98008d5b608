//! What the restores of a round read their archives through: a way to the store for each way of restoring,
//! so that one restore of each can be met midway without taking the other's share.

use anyhow::Result;
use serde_json::json;
use tests::{
    s3::fault::{Fault, FaultProxy},
    shared::World,
    tenant::Tenant,
};

use super::step::Way;

/// Two proxies before the same store.
pub struct Stores {
    direct: FaultProxy,
    prime: FaultProxy,
}

impl Stores {
    /// Both, at their best.
    pub async fn start(world: &World) -> Result<Self> {
        Ok(Self {
            direct: world.server.fault_proxy().await?,
            prime: world.server.fault_proxy().await?,
        })
    }

    /// The name of the BackupStore of one way.
    pub fn name(way: Way) -> &'static str {
        match way {
            Way::Direct => "direct",
            Way::Prime => "prime",
        }
    }

    /// The proxy of one way.
    pub fn of(&self, way: Way) -> &FaultProxy {
        match way {
            Way::Direct => &self.direct,
            Way::Prime => &self.prime,
        }
    }

    /// Has both misbehave in this way from now on.
    pub async fn set(&self, fault: Fault) -> Result<()> {
        self.direct.set(fault).await?;
        self.prime.set(fault).await
    }

    /// Writes the Secret and both BackupStores of a tenant, or writes them anew.
    pub async fn write(&self, tenant: &Tenant<'_>, keys: (&str, &str)) -> Result<()> {
        tenant.credentials(keys).await?;
        for way in [Way::Direct, Way::Prime] {
            let spec = json!({
                "url": format!("s3://{}", tenant.name),
                "endpoint": self.of(way).endpoint(),
                "credentialsSecretRef": {"name": "store-credentials"},
            });
            tenant.store_as(Self::name(way), spec).await?;
        }
        Ok(())
    }
}
