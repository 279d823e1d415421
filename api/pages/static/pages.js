// Progressive enhancement only: every page works without this file.
"use strict";

const LIVE_EVERY_MS = 3000;
const LIVE_KEY = "creditledger.live";

/** Fetches the page again and replaces the changed parts with data-live. */
async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (response.redirected) {
    location.reload(); // the session has expired
    return;
  }
  if (!response.ok) throw new Error(String(response.status));
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    const inUse = part.contains(document.activeElement) || part.querySelector("details[open]");
    if (next && !inUse && next.innerHTML !== part.innerHTML) part.replaceChildren(...next.childNodes);
  }
}

function startLive(button) {
  let timer = 0;
  const isOn = () => button.getAttribute("aria-pressed") === "true";
  const next = () => {
    clearTimeout(timer);
    if (isOn() && !document.hidden) timer = setTimeout(tick, LIVE_EVERY_MS);
  };
  const tick = async () => {
    try {
      await refresh();
      document.body.classList.remove("offline");
    } catch {
      document.body.classList.add("offline");
    }
    next();
  };
  const show = (on) => {
    button.setAttribute("aria-pressed", String(on));
    document.body.classList.toggle("live", on);
    next();
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    localStorage.setItem(LIVE_KEY, isOn() ? "off" : "on");
    show(!isOn());
  });
  document.addEventListener("visibilitychange", next);
  show(localStorage.getItem(LIVE_KEY) !== "off");
}

/** Keeps at most one info panel open. Escape or a click outside closes it. */
function startInfoPanels() {
  const opened = () => document.querySelectorAll("details.info[open]");
  document.addEventListener("click", (event) => {
    for (const panel of opened()) if (!panel.contains(event.target)) panel.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const panel of opened()) {
      panel.open = false;
      panel.querySelector("summary").focus();
    }
  });
}

/** Buttons with data-copy copy their text to the clipboard and report it. */
function startCopying() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    const status = document.getElementById("copied");
    if (status) status.textContent = `Copied ${button.dataset.copy}`;
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
  });
}

/** Sends a form only once, even if its button is pressed several times. */
function startForms() {
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => {
    for (const form of document.forms) delete form.dataset.sent;
  });
}

/** Sets which fields the selected country requires. The stylesheet hides the other fields. */
function startCountries() {
  document.addEventListener("change", (event) => {
    if (!event.target.id?.endsWith(".country")) return;
    for (const field of event.target.closest(".place").querySelectorAll("[data-required-in]")) {
      field.required = field.dataset.requiredIn === event.target.value;
    }
  });
}

const liveSwitch = document.querySelector("[data-live-switch]");
if (liveSwitch) startLive(liveSwitch);
startInfoPanels();
startCopying();
startForms();
startCountries();
document.querySelector("[data-focus]")?.focus();
