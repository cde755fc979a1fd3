//! What a process can be, and how each role is started.

use super::{Running, tell_dropped};
use crate::args::Role;
use crate::behind;
use crate::config::Config;
use anyhow::Context;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use waybill_checkout::{Checkout, Payments};
use waybill_fulfilment::{Pack, Pick, Ship};
use waybill_gateway::Means;
use waybill_inventory::Inventory;
use waybill_mail::unsubscribe::Unsubscribe;
use waybill_notifications::{Email, Fanout, FanoutSettings, Mailer, OrderMail, Outlet, Planner, Push, Restock, Tell};
use waybill_pages::Pages;
use waybill_payment::Stripe;
use waybill_payment::simulator::{self, SimulatorSettings};
use waybill_push::Endpoints;
use waybill_spine::{Shutdown, Stage, system_clock};
use waybill_telemetry::{Telemetry, TelemetryConfig};

const FULFILMENT: [Role; 3] = [Role::Pick, Role::Pack, Role::Ship];
const NOTIFICATIONS: [Role; 5] = [Role::Restock, Role::Fanout, Role::Email, Role::Push, Role::OrderMail];

/// Of all roles, those that write to people run where it is set up how.
pub(super) fn chosen(roles: &[Role], config: &Config) -> BTreeSet<Role> {
    let each = roles.iter().flat_map(|role| match role {
        Role::All => {
            let all = [&[Role::Gateway, Role::Checkout, Role::Inventory][..], &FULFILMENT, &NOTIFICATIONS].concat();
            let (on, off) = all.into_iter().partition::<Vec<Role>, _>(|role| config.sets_up(*role));
            off.into_iter().for_each(|role| eprintln!("{} stays off: it is not set up", name(role)));
            on
        }
        Role::Fulfilment => FULFILMENT.to_vec(),
        Role::Notifications => NOTIFICATIONS.to_vec(),
        Role::Gateway
        | Role::Checkout
        | Role::Inventory
        | Role::Restock
        | Role::Fanout
        | Role::Pick
        | Role::Pack
        | Role::Ship
        | Role::Email
        | Role::Push
        | Role::OrderMail
        | Role::PaymentSimulator => vec![*role],
    });
    each.collect()
}

pub(super) fn name(role: Role) -> &'static str {
    match role {
        Role::Gateway => waybill_gateway::STAGE,
        Role::Checkout => Checkout::NAME,
        Role::Inventory => Inventory::NAME,
        Role::Restock => Restock::NAME,
        Role::Fanout => Fanout::NAME,
        Role::Pick => Pick::NAME,
        Role::Pack => Pack::NAME,
        Role::Ship => Ship::NAME,
        Role::Email => Tell::<Email>::NAME,
        Role::Push => Tell::<Push>::NAME,
        Role::OrderMail => OrderMail::NAME,
        Role::Fulfilment => "fulfilment",
        Role::Notifications => "notifications",
        Role::All => "all",
        Role::PaymentSimulator => "payment-simulator",
    }
}

impl Running {
    /// Starts one.
    pub(super) async fn start_role(&mut self, role: Role, config: &Config) -> anyhow::Result<()> {
        let telemetry = config.telemetry(name(role));
        match role {
            Role::Gateway => {
                let endpoints = Endpoints::new(&config.push).context("push")?;
                let means = self.gateway_means(endpoints, config.unsubscribe()?)?;
                let address = self.start_gateway(config.http.listen, config.gateway.clone(), means, telemetry).await?;
                tracing::info!(http = %address, "the shop is open");
                if let Some(address) = self.start_pages(&config.pages).await? {
                    tracing::info!(pages = %address, "the operators' pages are open");
                }
                Ok(())
            }
            Role::Checkout => self.start_checkout(config.checkout, &config.payment, telemetry),
            Role::Inventory => self.start(Inventory, (), telemetry),
            Role::Restock => self.start(Restock::new(config.restock), (), telemetry),
            Role::Fanout => self.start_fanout(config.fanout, telemetry),
            Role::Pick => self.start(Pick, (), telemetry),
            Role::Pack => self.start(Pack, (), telemetry),
            Role::Ship => self.start(Ship, (), telemetry),
            Role::Email => self.start(Tell::<Email>::new(&config.rates), self.email(config)?, telemetry),
            Role::Push => self.start(Tell::<Push>::new(&config.rates), self.push(config)?, telemetry),
            Role::OrderMail => self.start(OrderMail, self.order_mail(config)?, telemetry),
            Role::PaymentSimulator => {
                let address = self.start_simulator(config.simulator.listen, config.simulator.settings()).await?;
                eprintln!("payment simulator: http://{address}, its books: /ledger");
                Ok(())
            }
            // Chosen apart.
            Role::Fulfilment | Role::Notifications | Role::All => Ok(()),
        }
    }

    /// What mails of campaigns go out by.
    fn email(&self, config: &Config) -> anyhow::Result<Outlet> {
        config.shop.check()?;
        let mailer = Mailer::new(&config.mail)?.with_links(&config.unsubscribe)?;
        let (shop, store) = (config.shop.clone(), self.another_store()?);
        Ok(Outlet::email(mailer, config.mail.connections, shop, config.rates, store))
    }

    /// What push messages go out by.
    fn push(&self, config: &Config) -> anyhow::Result<Outlet> {
        config.shop.check()?;
        let push = waybill_push::Push::new(&config.push, system_clock).context("push")?;
        Ok(Outlet::push(push, config.shop.clone(), config.rates, self.another_store()?))
    }

    /// What mails about orders go out by.
    fn order_mail(&self, config: &Config) -> anyhow::Result<Outlet> {
        config.shop.check()?;
        let (mailer, shop, store) = (Mailer::new(&config.mail)?, config.shop.clone(), self.another_store()?);
        Ok(Outlet::orders(mailer, config.mail.connections, shop, config.rates, store))
    }

    /// What a gateway stands on here.
    pub fn gateway_means(&self, endpoints: Endpoints, unsubscribe: Option<Unsubscribe>) -> anyhow::Result<Means> {
        Ok(Means { kafka: self.kafka.apart(), store: self.another_store()?, endpoints, unsubscribe })
    }

    /// Starts the HTTP API as a task; yields where it listens.
    pub async fn start_gateway(
        &mut self,
        listen: SocketAddr,
        settings: waybill_gateway::Settings,
        means: Means,
        telemetry: TelemetryConfig,
    ) -> anyhow::Result<SocketAddr> {
        let telemetry = Telemetry::start(&telemetry)?;
        if self.telemetry.is_empty() {
            telemetry.bridge();
        }
        behind::tell(&telemetry, self.kafka.clone())?;
        let listener = TcpListener::bind(listen).await.context("http.listen")?;
        let address = listener.local_addr()?;
        let (pulse, shutdown) = (self.health.pulse(waybill_gateway::STAGE), self.shutdown.clone());
        pulse.refused_by(means.kafka.refusals());
        self.spawn(waybill_gateway::STAGE, async move {
            let served = waybill_gateway::serve(listener, settings, means, &telemetry, pulse, shutdown).await;
            tell_dropped(waybill_gateway::STAGE, tokio::task::spawn_blocking(|| telemetry.close()).await?);
            served.map_err(anyhow::Error::from)
        });
        Ok(address)
    }

    /// Starts the checkout, with its payment provider; within a runtime, which makes the calls.
    pub fn start_checkout(
        &mut self,
        settings: waybill_checkout::Settings,
        payment: &waybill_payment::Settings,
        telemetry: TelemetryConfig,
    ) -> anyhow::Result<()> {
        let what_to_do = "payment: give payment.url and payment.key, or try it with `waybill run payment-simulator`";
        let stripe = Stripe::new(payment).context(what_to_do)?;
        let means = Payments::new(stripe, self.another_store()?, &Handle::current());
        self.start(Checkout::new(settings), means, telemetry)
    }

    /// Starts fanout, with what plans its campaigns; within a runtime, which makes their steps.
    pub fn start_fanout(&mut self, settings: FanoutSettings, telemetry: TelemetryConfig) -> anyhow::Result<()> {
        let planner = Planner::new(settings, self.another_store()?, &Handle::current());
        self.start(Fanout::new(settings), planner, telemetry)
    }

    /// Starts the payment simulator as a task; yields where it listens.
    pub async fn start_simulator(
        &mut self,
        listen: SocketAddr,
        settings: SimulatorSettings,
    ) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(listen).await.context("simulator.listen")?;
        let address = listener.local_addr()?;
        let stopped = stopped(self.shutdown.clone());
        self.spawn(
            name(Role::PaymentSimulator),
            async move { Ok(simulator::serve(listener, settings, stopped).await?) },
        );
        Ok(address)
    }

    /// Starts the operators' pages as a task, unless they are off; yields where they listen.
    async fn start_pages(&mut self, settings: &waybill_pages::Settings) -> anyhow::Result<Option<SocketAddr>> {
        let Some(opened) = settings.open()? else { return Ok(None) };
        let listener = TcpListener::bind(opened.listen).await.context("pages.listen")?;
        let address = listener.local_addr()?;
        let pages = Pages::new(opened, self.another_store()?, &self.kafka, system_clock)?;
        let stopped = stopped(self.shutdown.clone());
        self.spawn("pages", async move { Ok(pages.serve(listener, stopped).await?) });
        Ok(Some(address))
    }
}

async fn stopped(shutdown: Shutdown) {
    while !shutdown.requested() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
