//! The part of the Controller service that is about snapshots.

use csi::v1::list_snapshots_response::Entry;
use csi::v1::{
    CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse, Snapshot,
};
use prost_types::Timestamp;
use tonic::Status;

use super::{Services, request, signed};
use crate::operations::delete_snapshot::delete_snapshot;
use crate::operations::list::{self, Listed, Page};
use crate::operations::snapshot::{NewSnapshot, look_up, take};
use crate::pool::SnapshotRecord;
use crate::volume::{FileSystem, OfSnapshot, SnapshotId, SnapshotParameters, VolumeId};

impl Services {
    pub(super) async fn take_snapshot(
        &self,
        request: CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, Status> {
        let name = request::text("name", &request.name)?.to_owned();
        let volume = request::id("source_volume_id", &request.source_volume_id)?;
        let parameters = SnapshotParameters::parse(&request.parameters)
            .map_err(|error| request::invalid(error.to_string()))?;
        let new = NewSnapshot {
            name,
            volume,
            freeze: parameters.freeze,
            nodes: self.nodes(request.accessibility_requirements.as_ref()),
        };
        let (id, record) = self.run(move |pool| take(pool, &new)).await?;
        Ok(CreateSnapshotResponse {
            snapshot: Some(self.snapshot(&id, &record)),
        })
    }

    pub(super) async fn forget_snapshot(
        &self,
        request: DeleteSnapshotRequest,
    ) -> Result<DeleteSnapshotResponse, Status> {
        if let Some(id) = request::former_id("snapshot_id", &request.snapshot_id)? {
            self.run(move |pool| delete_snapshot(pool, &id)).await?;
        }
        Ok(DeleteSnapshotResponse {})
    }

    pub(super) async fn find_snapshot(
        &self,
        request: GetSnapshotRequest,
    ) -> Result<GetSnapshotResponse, Status> {
        let id: SnapshotId = request::id("snapshot_id", &request.snapshot_id)?;
        let wanted = id.clone();
        let record = self.run(move |pool| look_up(pool, &wanted)).await?;
        Ok(GetSnapshotResponse {
            snapshot: Some(self.snapshot(&id, &record)),
        })
    }

    pub(super) async fn page_of_snapshots(
        &self,
        request: ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Status> {
        let page = request::page(request.max_entries, &request.starting_token)?;
        let listed = match (&*request.snapshot_id, &*request.source_volume_id) {
            ("", "") => self.listed(page, |_| true).await?,
            ("", volume) => match VolumeId::parse(volume) {
                Some(volume) => self.listed(page, move |it| it.volume == volume).await?,
                None => Vec::new().into(),
            },
            (snapshot, volume) => {
                let volume = volume.to_owned();
                match SnapshotId::parse(snapshot) {
                    Some(id) => self.single(id, volume).await?.into(),
                    None => Vec::new().into(),
                }
            }
        };
        let entries = listed.entries.iter().map(|(id, record)| Entry {
            snapshot: Some(self.snapshot(id, record)),
        });
        Ok(ListSnapshotsResponse {
            entries: entries.collect(),
            next_token: listed.next.map_or_else(String::new, String::from),
        })
    }

    async fn listed(
        &self,
        page: Page<OfSnapshot>,
        wanted: impl Fn(&SnapshotRecord) -> bool + Send + 'static,
    ) -> Result<Listed<OfSnapshot, SnapshotRecord>, Status> {
        self.run(move |pool| list::snapshots(pool, &page, wanted))
            .await
    }

    /// One snapshot, if it is there and shows this volume, or any if none is named.
    async fn single(
        &self,
        id: SnapshotId,
        volume: String,
    ) -> Result<Vec<(SnapshotId, SnapshotRecord)>, Status> {
        let wanted = id.clone();
        match self.run(move |pool| look_up(pool, &wanted)).await {
            Ok(record) if volume.is_empty() || record.volume.as_str() == volume => {
                Ok(vec![(id, record)])
            }
            Ok(_) => Ok(Vec::new()),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(Vec::new()),
            Err(status) => Err(status),
        }
    }

    pub(super) fn snapshot(&self, id: &SnapshotId, record: &SnapshotRecord) -> Snapshot {
        // What a restore needs at least. Where the volume is as small as volumes are, a restore of
        // any size comes up as large, and asking for less must not be refused: 0 says so.
        let smallest = record.size_bytes <= FileSystem::least(record.file_system);
        Snapshot {
            size_bytes: signed(if smallest { 0 } else { record.size_bytes }),
            snapshot_id: id.to_string(),
            source_volume_id: record.volume.to_string(),
            creation_time: Some(timestamp(record.taken_nanoseconds)),
            ready_to_use: true,
            group_snapshot_id: record.group.clone().map_or_else(String::new, String::from),
            accessible_topology: vec![self.topology()],
        }
    }
}

impl From<Vec<(SnapshotId, SnapshotRecord)>> for Listed<OfSnapshot, SnapshotRecord> {
    fn from(entries: Vec<(SnapshotId, SnapshotRecord)>) -> Self {
        let next = None;
        Self { entries, next }
    }
}

/// A moment as protobuf has it.
pub(super) fn timestamp(nanoseconds: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    Timestamp {
        seconds: signed(nanoseconds / SECOND),
        nanos: i32::try_from(nanoseconds % SECOND).unwrap_or(0),
    }
}
