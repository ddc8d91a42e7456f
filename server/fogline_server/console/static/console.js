// Asks for the page's changing part when an event arrives, and every few seconds for what changes without one.
"use strict";

const QUIET_MS = 300; // events come in bursts: one refresh a burst
const IDLE_MS = 5000;
const live = document.getElementById("live");
const link = document.getElementById("link");
let timer = 0;
let asking = false;

function say(text, tone) {
  link.textContent = text;
  link.className = tone;
}

function later(ms) {
  clearTimeout(timer);
  timer = setTimeout(refresh, ms);
}

async function refresh() {
  if (asking) return later(QUIET_MS);
  asking = true;
  try {
    const answer = await fetch("/console/live", { credentials: "same-origin" });
    if (answer.status === 401) return location.assign("/login");
    if (!answer.ok) throw new Error(String(answer.status));
    const html = await answer.text();
    const y = window.scrollY;
    live.innerHTML = html;
    window.scrollTo(0, y);
    say("live", "good");
  } catch {
    say("coordinator away, trying again", "bad");
  } finally {
    asking = false;
    later(IDLE_MS);
  }
}

const stream = new EventSource("/v1/events");
// What happened before the stream was open, or while it was down, has told nobody.
stream.onopen = () => later(0);
stream.onerror = () => say("reconnecting", "bad");
stream.onmessage = () => later(QUIET_MS);
later(IDLE_MS);
