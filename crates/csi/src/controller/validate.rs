//! Whether a volume that is there can be used as somebody wants to.

use crate::capability::Usage;
use crate::check;
use crate::driver::Driver;
use crate::names::labels;
use crate::parameters::{self, Parameters};
use crate::proto::{self, validate_volume_capabilities_response::Confirmed};
use crate::volumes::Volume;
use tonic::Status;

impl Driver {
    pub(super) fn validate(
        &self,
        request: proto::ValidateVolumeCapabilitiesRequest,
    ) -> Result<proto::ValidateVolumeCapabilitiesResponse, Status> {
        check::id("volume_id", &request.volume_id)?;
        for (field, map) in [
            ("volume_context", &request.volume_context),
            ("parameters", &request.parameters),
            ("secrets", &request.secrets),
            ("mutable_parameters", &request.mutable_parameters),
        ] {
            check::map(field, map)?;
        }
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities are missing"));
        }
        let volume = self.volume(&request.volume_id)?;
        let (confirmed, message) = match differs(&request, &volume) {
            Some(how) => (None, how),
            None => {
                let confirmed = Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                };
                (Some(confirmed), String::new())
            }
        };
        Ok(proto::ValidateVolumeCapabilitiesResponse { confirmed, message })
    }
}

/// Why the volume is not what is asked about, if so.
fn differs(request: &proto::ValidateVolumeCapabilitiesRequest, volume: &Volume) -> Option<String> {
    let read = Usage::all(&request.volume_capabilities)
        .and_then(|usages| Ok((usages, Parameters::new(&request.parameters, &request.mutable_parameters)?)));
    let (usages, wanted) = match read {
        Ok(read) => read,
        Err(refused) => return Some(refused.message().to_owned()),
    };
    let label = |key: &str| volume.labels.get(key).map(String::as_str);
    let named = usages.iter().filter_map(Usage::fs).chain(wanted.fs);
    let other = named.into_iter().find(|fs| label(labels::FS).is_some_and(|has| has != fs.name()));
    if let Some(fs) = other {
        return Some(format!("it is made for {}, and not for {fs}", label(labels::FS).unwrap_or_default()));
    }
    if wanted.secret.is_some() && !volume.is_encrypted {
        return Some("it is not encrypted".to_owned());
    }
    if request.parameters.contains_key("repl") && wanted.replicas != volume.replicas {
        return Some(format!("it has {} replicas, and not {}", volume.replicas, wanted.replicas));
    }
    if let Some(wanted) = wanted.placement.as_deref().filter(|wanted| label(labels::PLACEMENT) != Some(wanted)) {
        let has = label(labels::PLACEMENT).unwrap_or("none");
        return Some(format!("its placement_strategy is {has}, and not {wanted}"));
    }
    let says_limits = request.parameters.keys().chain(request.mutable_parameters.keys());
    let says_limits = says_limits.into_iter().any(|key| key == "iops" || key == "bandwidth");
    if says_limits && wanted.limits != volume.limits {
        return Some(format!(
            "its limits (iops, bytes per second) are {}, and not {}; 0 is none",
            parameters::told(volume.limits),
            parameters::told(wanted.limits)
        ));
    }
    None
}
