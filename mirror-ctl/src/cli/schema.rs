//! `schema`: what scripts may rely on, generated from the types that are printed.

use anyhow::Result;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    apply::Outcome,
    args::SchemaKind,
    ask::{Done, print_json},
    upgrade::Upgraded,
};
use crate::{
    agent::{
        log::LogEntry,
        models::ModelsRow,
        view::{InstanceRow, MirrorRow, StatusRow, VniRow},
    },
    api::{openapi, select::SelectRow},
    config::Config,
    connections::FlowRow,
    doctor::Report,
    trace::{PacketRow, diff::DiffReport},
};

/// Version of what `--json` prints. Within it fields are added, never renamed or removed.
const VERSION: u32 = 1;

pub(super) fn run(kind: SchemaKind) -> Result<()> {
    match kind {
        SchemaKind::Openapi => print_json(&openapi::document()),
        SchemaKind::Json => print_json(&output()),
    }
}

/// A schema for each verb, and the schemas that they share: JSON Schema 2020-12, as in OpenAPI 3.1.
fn output() -> Value {
    let mut all = Schemas::default();
    let instances = all.list::<InstanceRow>();
    let done = all.one::<Done>();
    let config = all.one::<Config>();
    let events = all.one::<LogEntry>();
    let flows = all.list::<FlowRow>();
    let models = all.one::<ModelsRow>();
    let verbs = json!({
        "health models": models,
        "health promote": models,
        "health rollback": models,
        "status": all.one::<StatusRow>(),
        "vni": all.list::<VniRow>(),
        "select": all.one::<SelectRow>(),
        "instances": instances,
        "flows": flows,
        "flows --watch": flows,
        "mirrors": all.list::<MirrorRow>(),
        "events": { "type": "array", "items": events },
        "events --follow": events,
        "diff": all.one::<DiffReport>(),
        "trace": all.one::<PacketRow>(),
        "upgrade": all.one::<Upgraded>(),
        "evacuate": instances,
        "restore": instances,
        "drain": instances,
        "takeover": instances,
        "apply": all.one::<Outcome>(),
        "doctor": all.one::<Report>(),
        "config check": config,
        "config show": config,
        "config init": done,
        "load": done,
        "unload": done,
        "reload": done,
    });
    all.schemas.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.schemas.dedup_by(|(a, _), (b, _)| a == b);
    let schemas: serde_json::Map<_, _> = all
        .schemas
        .into_iter()
        .map(|(name, schema)| (name, json!(schema)))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mirror-ctl --json",
        "version": VERSION,
        "verbs": verbs,
        "components": { "schemas": schemas },
    })
}

/// The named schemas that were met.
#[derive(Default)]
struct Schemas {
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Schemas {
    /// A value of a type.
    fn one<T: ToSchema + PartialSchema>(&mut self) -> Value {
        T::schemas(&mut self.schemas);
        let name = T::name().into_owned();
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        self.schemas.push((name, T::schema()));
        reference
    }

    /// Several of them.
    fn list<T: ToSchema + PartialSchema>(&mut self) -> Value {
        json!({ "type": "array", "items": self.one::<T>() })
    }
}
