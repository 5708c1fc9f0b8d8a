//! Volumes are made: empty ones, and clones of snapshots and volumes.
//!
//! What is to be is noted with the volume in the same step that makes it. So a call that is repeated compares what is there with what is asked for, and
//! goes on from whatever step the earlier one came to:
//!
//! 1. (a clone of a volume) a snapshot is taken, for this purpose alone;
//! 2. the volume is made, with its labels;
//! 3. (a clone) it grows to its size;
//! 4. (a clone of a volume) the snapshot is deleted.

use crate::busy;
use crate::capability::Usage;
use crate::check;
use crate::driver::Driver;
use crate::host::FileSystem;
use crate::names::{self, labels};
use crate::parameters::{self, Parameters};
use crate::proto::{self, volume_content_source::Type as Source};
use crate::size::Wanted;
use crate::volumes::{Kind, Labels, NewVolume, Origin, Secret, Volume};
use tonic::{Code, Status};

/// All that a request says of a new volume.
struct Asked {
    id: String,
    name: String,
    wanted: Wanted,
    parameters: Parameters,
    fs: Option<FileSystem>,
    secret: Option<Secret>,
    origin: Option<Origin>,
}

impl Driver {
    pub(super) fn create_volume(
        &self,
        request: &proto::CreateVolumeRequest,
    ) -> Result<proto::CreateVolumeResponse, Status> {
        let asked = asked(request)?;
        let _held = self.busy.hold([busy::volume(&asked.id)])?;
        let volume = match self.volumes.find(&asked.id)? {
            Some(there) => self.volumes.ready(self.complete(&asked, there)?)?,
            None => {
                self.reachable(request.accessibility_requirements.as_ref())?;
                let made = self.make(&asked);
                made.map_err(|refused| self.not_here(&asked, request.accessibility_requirements.as_ref(), refused))?
            }
        };
        self.finish(&asked)?;
        let mut told = self.told_volume(&volume);
        told.content_source = request.volume_content_source.clone();
        Ok(proto::CreateVolumeResponse { volume: Some(told) })
    }

    /// Refuses a volume that would have to be elsewhere.
    fn reachable(&self, wanted: Option<&proto::TopologyRequirement>) -> Result<(), Status> {
        let Some(wanted) = wanted else { return Ok(()) };
        if wanted.requisite.is_empty() || wanted.requisite.iter().any(|place| self.is_here(place)) {
            return Ok(());
        }
        let what = format!("the volume can be on the node {} alone, and none of the places wanted is that", self.node);
        Err(Status::resource_exhausted(what))
    }

    /// A source that is not here may be on another node. To who has chosen this one it is said as the specification says it of places where a volume cannot
    /// be, so that another one is chosen.
    fn not_here(&self, asked: &Asked, wanted: Option<&proto::TopologyRequirement>, refused: Status) -> Status {
        let is_chosen = wanted.is_some_and(|wanted| !wanted.requisite.is_empty());
        if asked.origin.is_none() || !is_chosen || refused.code() != Code::NotFound {
            return refused;
        }
        Status::resource_exhausted(format!(
            "{} on the node {}, and a volume is cloned on the node of its source; have the pod that uses it scheduled there",
            refused.message(),
            self.node
        ))
    }

    fn make(&self, asked: &Asked) -> Result<Volume, Status> {
        if self.volumes.snapshots()?.iter().any(|snapshot| snapshot.volume == asked.id) {
            let what = format!(
                "there are snapshots of an earlier volume {}, and they would be taken for those of the new one; delete them first",
                asked.id
            );
            return Err(Status::already_exists(what));
        }
        let Some(origin) = &asked.origin else {
            let bytes = asked.wanted.size(asked.fs.map_or(0, FileSystem::least), &reason(asked.fs))?;
            let made = self.volumes.create(self.planned(asked, bytes), asked.secret.as_ref())?;
            return Ok(made);
        };
        let (source_bytes, is_encrypted) = self.source(origin)?;
        compatible(asked, is_encrypted)?;
        let bytes = asked.wanted.size(source_bytes, ", as many as the source has")?;
        if let Some(refused) = self.too_large(bytes, asked.parameters.replicas)? {
            return Err(Status::resource_exhausted(refused));
        }
        let snapshot = match origin {
            Origin::Snapshot(id) => id.clone(),
            Origin::Volume(id) => {
                let taken = names::snapshot(id, &names::derived("clone-", &asked.id));
                let purpose = Labels::from([(labels::FOR_CLONE.to_owned(), asked.id.clone())]);
                self.volumes.snapshot(std::slice::from_ref(&taken), &purpose)?;
                taken
            }
        };
        let made = self.volumes.clone_snapshot(&snapshot, self.planned(asked, bytes));
        if made.is_err() {
            // Whoever asks again wants the source as it is then.
            self.finish(asked)?;
        }
        self.filled(made?, bytes)
    }

    fn planned(&self, asked: &Asked, bytes: u64) -> NewVolume {
        NewVolume {
            id: asked.id.clone(),
            bytes,
            replicas: asked.parameters.replicas,
            placement: asked.parameters.placement.clone(),
            limits: asked.parameters.limits,
            labels: noted(asked, bytes),
        }
    }

    /// Why no volume of this size could ever be filled, if so.
    pub(super) fn too_large(&self, bytes: u64, replicas: u32) -> Result<Option<String>, Status> {
        let largest = self.volumes.capacity(replicas)?.largest;
        let refused = || format!("{bytes} bytes are wanted, and a volume has room for {largest}; make a pool larger");
        Ok((bytes > largest).then(refused))
    }

    /// What the source has: bytes, and whether they are encrypted.
    fn source(&self, origin: &Origin) -> Result<(u64, bool), Status> {
        match origin {
            Origin::Volume(id) => self.volume(id).map(|volume| (volume.bytes, volume.is_encrypted)),
            Origin::Snapshot(id) => self.snapshot(id).map(|snapshot| (snapshot.bytes, snapshot.is_encrypted)),
        }
    }

    /// A volume of the name is there: it is what was asked for, or becomes it if a call was interrupted, or it is another.
    fn complete(&self, asked: &Asked, there: Volume) -> Result<Volume, Status> {
        let differs = |how: String| {
            Err(Status::already_exists(format!("there is a volume {}, and it is another: {how}", asked.id)))
        };
        let label = |key: &str| there.labels.get(key).cloned().unwrap_or_default();
        let planned: u64 = label(labels::BYTES).parse().unwrap_or(0);
        let bytes = there.bytes.max(planned);
        let expected = noted(asked, planned);
        for key in [labels::NAME, labels::FS, labels::SOURCE, labels::LIMITS, labels::SECRET, labels::PLACEMENT] {
            let wanted = expected.get(key).cloned().unwrap_or_default();
            if label(key) != wanted {
                return differs(format!("of {key} it has {:?}, and {wanted:?} is asked for", label(key)));
            }
        }
        if there.replicas != asked.parameters.replicas {
            return differs(format!(
                "it has {} replicas, and {} are asked for",
                there.replicas, asked.parameters.replicas
            ));
        }
        if let Err(refused) = asked.wanted.fits(bytes, "") {
            return differs(refused.message().to_owned());
        }
        self.filled(there, planned)
    }

    /// A clone begins with the size of its source.
    fn filled(&self, volume: Volume, bytes: u64) -> Result<Volume, Status> {
        if volume.bytes >= bytes {
            return Ok(volume);
        }
        Ok(self.volumes.grow(&volume.id, bytes)?)
    }

    /// Deletes the snapshot that a clone of a volume was made from.
    fn finish(&self, asked: &Asked) -> Result<(), Status> {
        let Some(Origin::Volume(id)) = &asked.origin else { return Ok(()) };
        Ok(self.volumes.delete_snapshot(&names::snapshot(id, &names::derived("clone-", &asked.id)))?)
    }
}

fn asked(request: &proto::CreateVolumeRequest) -> Result<Asked, Status> {
    check::name("name", &request.name)?;
    for (field, map) in [
        ("parameters", &request.parameters),
        ("secrets", &request.secrets),
        ("mutable_parameters", &request.mutable_parameters),
    ] {
        check::map(field, map)?;
    }
    let usages = Usage::all(&request.volume_capabilities)?;
    let parameters = Parameters::new(&request.parameters, &request.mutable_parameters)?;
    let mut fs = parameters.fs;
    for named in usages.iter().filter_map(Usage::fs) {
        if *fs.get_or_insert(named) != named {
            let what = format!("the file system is to be {named}, and another one as well; name one");
            return Err(Status::invalid_argument(what));
        }
    }
    Ok(Asked {
        id: names::id(&request.name),
        name: request.name.clone(),
        wanted: Wanted::new(request.capacity_range.as_ref())?,
        secret: parameters.passphrase(&request.secrets)?,
        fs,
        parameters,
        origin: origin(request.volume_content_source.as_ref())?,
    })
}

fn origin(source: Option<&proto::VolumeContentSource>) -> Result<Option<Origin>, Status> {
    let Some(source) = source else { return Ok(None) };
    match &source.r#type {
        Some(Source::Snapshot(from)) => {
            check::id("snapshot_id", &from.snapshot_id)?;
            Ok(Some(Origin::Snapshot(from.snapshot_id.clone())))
        }
        Some(Source::Volume(from)) => {
            check::id("volume_id", &from.volume_id)?;
            Ok(Some(Origin::Volume(from.volume_id.clone())))
        }
        None => Err(Status::invalid_argument("volume_content_source must name a snapshot or a volume")),
    }
}

/// What is noted of it; the same for the same request.
fn noted(asked: &Asked, bytes: u64) -> Labels {
    let source = asked.origin.as_ref().map(|origin| match origin {
        Origin::Snapshot(id) => format!("snapshot {id}"),
        Origin::Volume(id) => format!("volume {id}"),
    });
    let all = [
        (labels::NAME, Some(asked.name.clone())),
        (labels::BYTES, Some(bytes.to_string())),
        (labels::FS, asked.fs.map(|fs| fs.name().to_owned())),
        (labels::SOURCE, source),
        (labels::LIMITS, Some(parameters::told(asked.parameters.limits))),
        (labels::SECRET, asked.parameters.secret.clone()),
        (labels::PLACEMENT, asked.parameters.placement.clone()),
    ];
    let noted = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    noted.chain(asked.parameters.claim.iter().cloned()).collect()
}

/// A clone has the key of its source.
fn compatible(asked: &Asked, source_is_encrypted: bool) -> Result<(), Status> {
    let how = match (asked.secret.is_some(), source_is_encrypted) {
        (true, false) => "the class wants an encrypted volume, and the source is in clear",
        (false, true) => "the source is encrypted, and the class names no secret",
        _ => return Ok(()),
    };
    Err(Status::invalid_argument(format!("{how}; a clone is as its source is: use a class like that of the source")))
}

fn reason(fs: Option<FileSystem>) -> String {
    fs.map(|fs| format!(" for {fs}")).unwrap_or_default()
}

/// For what a volume must not be any more.
pub(super) fn in_use(error: crate::volumes::Error) -> Status {
    match error.kind {
        Kind::Precondition => Status::failed_precondition(error.story),
        _ => error.into(),
    }
}
