//! Real traffic through the agent and the dataplane, one test a behaviour. Each
//! has a network of its own, and most run beside each other. They need root and say so; none is ever skipped.

mod agent;
mod apply;
mod browser;
mod capture;
mod changes;
mod datagrams;
mod diff;
mod divergence;
mod doctor;
mod drain;
mod events;
mod first;
mod flood;
mod flows;
mod forgotten;
mod fragments;
mod handshake;
mod hostile;
mod input;
mod learning;
mod links;
mod manual;
mod measured;
mod metrics;
mod mirrors;
mod mtu;
mod page;
mod prediction;
mod privileges;
mod quic;
mod reload;
mod remote;
mod schema;
mod service;
mod shadow;

mod support;
mod suspicion;
mod takeover;
mod trace;
mod upgrade;
mod zones;
