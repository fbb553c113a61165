//! Real traffic through the agent and the dataplane, one test a behaviour. Each
//! has a network of its own. They need root and say so; none is ever skipped.

mod agent;
mod apply;
mod browser;
mod capture;
mod datagrams;
mod divergence;
mod doctor;
mod events;
mod flows;
mod handshake;
mod input;
mod links;
mod metrics;
mod mirrors;
mod page;
mod prediction;
mod reload;
mod schema;
mod service;
mod support;
mod suspicion;
mod takeover;
mod upgrade;
