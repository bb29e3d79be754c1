"use strict";

// The slider: how many answers are given, and how many of those are wrong, when every doubt above a threshold declines.
(() => {
  const box = document.getElementById("slider");
  if (!box) return;
  const { entropies, right, highest, threshold: stored } = JSON.parse(document.getElementById("doubts").textContent);
  const input = document.getElementById("threshold");
  const reset = document.getElementById("reset");
  const here = document.querySelector(".here");
  const steps = Number(input.max);
  const total = entropies.length;

  const wrongBefore = [0]; // among the k answers that it doubts least
  for (const one of right) wrongBefore.push(wrongBefore[wrongBefore.length - 1] + (one === "0" ? 1 : 0));
  const wrongOfAll = wrongBefore[total];

  // Most doubts are tiny: the cube of the position gives them the greater part of the way.
  const thresholdAt = (position) => highest * (position / steps) ** 3;
  const positionOf = (threshold) => Math.min(steps, Math.round(steps * Math.cbrt(threshold / highest)));

  const keptBelow = (threshold) => {
    let low = 0;
    let high = total;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (entropies[middle] <= threshold) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
  const count = (number) => number.toLocaleString("en");
  const show = (name, text) => { box.querySelector(`[data-show="${name}"]`).textContent = text; };

  const mark = (coverage, risk) => {
    if (!here) return;
    const [left, far, bottom, top, most] = here.dataset.frame.split(" ").map(Number);
    here.setAttribute("cx", left + coverage * (far - left));
    here.setAttribute("cy", bottom - Math.min(1, risk / most) * (bottom - top));
    here.style.visibility = coverage ? "visible" : "hidden";
  };

  const update = (threshold) => {
    const kept = keptBelow(threshold);
    const wrong = wrongBefore[kept];
    const nats = `${threshold.toFixed(threshold < 0.1 ? 4 : 3)} nats`;
    show("threshold", nats);
    show("coverage", percent(kept / total));
    show("accuracy", kept ? percent(1 - wrong / kept) : "\u2013");
    show("wrong", count(wrong));
    show("given", count(kept));
    show("avoided", count(wrongOfAll - wrong));
    show("price", count(total - kept - (wrongOfAll - wrong)));
    input.setAttribute("aria-valuetext", nats);
    mark(kept / total, kept ? wrong / kept : 0);
  };

  const restore = () => {
    input.value = stored === null ? steps : positionOf(stored);
    update(stored === null ? highest : stored);
  };

  input.addEventListener("input", () => update(thresholdAt(Number(input.value))));
  reset.addEventListener("click", restore);
  restore();
  box.hidden = false;
})();

// On paper nothing can be unfolded.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
