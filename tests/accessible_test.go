package tests

// accessible says what in the page a reader with poor sight, a screen reader
// or no mouse would stumble over: the rules of WCAG 2.2 that a program can
// decide, on what the browser has rendered.
func (c *chromium) accessible(name string) {
	c.t.Helper()
	if found := c.eval(stumbling); found != "" {
		c.t.Errorf("%s: %s", name, found)
	}
}

// stumbling is one string of violations, empty if there are none.
const stumbling = `(() => {
	const found = [];
	const say = (rule, e) => found.push(rule + ": " + (e ? e.outerHTML.slice(0, 120) : ""));
	const shown = e => e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
	const rgba = s => { const n = s.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
	const over = (f, b) => [0, 1, 2].map(i => f[i] * f[3] + b[i] * (1 - f[3])).concat(1);
	const luminance = c => {
		const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b;
	};
	const behind = e => {
		const layers = [];
		for (let n = e; n; n = n.parentElement) {
			const c = rgba(getComputedStyle(n).backgroundColor);
			if (c[3] > 0) layers.push(c);
			if (c[3] === 1) break;
		}
		return layers.reverse().reduce((b, c) => over(c, b), [255, 255, 255, 1]);
	};
	let texts = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || !shown(e)) continue;
		texts++;
		const s = getComputedStyle(e), back = behind(e);
		const ink = over(rgba(e.closest("svg") ? s.fill : s.color), back);
		const [a, b] = [luminance(ink), luminance(back)];
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		const size = parseFloat(s.fontSize), large = size >= 24 || size >= 18.66 && +s.fontWeight >= 700;
		if (ratio < (large ? 3 : 4.5)) say("1.4.3 contrast " + ratio.toFixed(2), e);
	}
	if (texts < 5) say("only " + texts + " texts were looked at");
	if (!document.documentElement.lang) say("3.1.1 no language");
	if (!document.title.trim()) say("2.4.2 no title");
	if (document.querySelectorAll("main").length !== 1) say("1.3.1 not one main landmark");
	if (document.querySelectorAll("h1").length !== 1) say("1.3.1 not one h1");
	let level = 0;
	for (const h of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
		if (+h.tagName[1] > level + 1) say("1.3.1 heading level skipped", h);
		level = +h.tagName[1];
	}
	const label = e => (e.getAttribute("aria-label") || (e.getAttribute("aria-labelledby") || "").split(" ").map(i => document.getElementById(i)?.textContent || "").join("") ||
		[...(e.labels || [])].map(l => l.textContent).join("") || e.querySelector?.(":scope > title")?.textContent || "").trim();
	for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) if (!label(e)) say("1.3.1 field without a label", e);
	for (const e of document.querySelectorAll("a[href], button, summary")) {
		if (!(label(e) || e.textContent.trim() || e.querySelector("img[alt]:not([alt=''])"))) say("4.1.2 control without a name", e);
		const r = e.getBoundingClientRect();
		if (shown(e) && !e.matches(".skip") && getComputedStyle(e).display !== "inline" && r.height < 24 && r.width < 24) say("2.5.8 target of less than 24 pixels", e);
	}
	for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) say("1.1.1 image without a text", e);
	for (const e of document.querySelectorAll("svg")) if (e.getAttribute("aria-hidden") !== "true" && !(e.getAttribute("role") === "img" && label(e))) say("1.1.1 graphic without a text", e);
	for (const e of document.querySelectorAll("table")) {
		if (!e.querySelector("th")) say("1.3.1 table without headings", e);
		for (const h of e.querySelectorAll("th")) if (!h.textContent.trim()) say("1.3.1 empty heading", h);
	}
	for (const e of document.querySelectorAll("nav, section")) if (!label(e)) say("1.3.1 region without a name", e);
	const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
	for (const i of new Set(ids)) if (ids.filter(x => x === i).length > 1) say("4.1.1 id " + i + " twice");
	for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby], label[for]")) {
		const refs = ["aria-labelledby", "aria-describedby", "for"].flatMap(a => (e.getAttribute(a) || "").split(" ")).filter(Boolean);
		for (const i of refs) if (!ids.includes(i)) say("4.1.2 refers to no element " + i, e);
	}
	for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) say("2.4.3 order of focus", e);
	for (const e of document.querySelectorAll("*")) if (e.scrollWidth > e.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0) say("2.1.1 scrolls by mouse only", e);
	return found.join("\n");
})()`
