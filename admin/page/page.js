// The admin page: a report comes every second, and everything is drawn from it.

import { layout } from './layout.js'

function fromHash() {
	try { return decodeURIComponent(location.hash.slice(1)) } catch { return '' } // somebody has typed it
}

const byId = id => document.getElementById(id)
const chosen = { app: fromHash() }
let reports = [] // of the last ten seconds, the oldest first

// at is where something is asked for: without the password that the page's own address may have, which fetch refuses.
const at = path => new URL(path, location.origin + location.pathname)

// --- what is what ---------------------------------------------------------------------------------

const workers = app => Math.max(0, app.Workers) * (app.PerInstance ?? []).filter(i => i.State === 'ready').length

const serves = state => state === 'ready' || state === 'new'
const alive = app => serves(app.State) || app.Isolation === 'remote'
const colour = app => !alive(app) ? 'dead' : app.Now.Saturation >= .9 ? 'hot' : app.Now.Saturation >= .7 ? 'warm' : 'calm'

// out says which instances do not serve, in words: '1 drained'.
function out(app) {
	const counts = new Map()
	for (const { State } of app.PerInstance ?? []) if (!serves(State)) counts.set(State, (counts.get(State) ?? 0) + 1)
	return [...counts].map(([state, n]) => `${n} ${state}`).join(', ')
}

function duration(s) {
	if (!s) return '–'
	const [value, unit] = s < 1e-3 ? [s * 1e6, 'µs'] : s < 1 ? [s * 1e3, 'ms'] : [s, 's']
	return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`
}
const rate = n => !n ? '0' : n < 10 ? n.toFixed(1) : Math.round(n).toString()
const percent = part => `${Math.round(100 * part)} %`

function element(name, attributes = {}, ...children) {
	const e = document.createElement(name)
	for (const [k, v] of Object.entries(attributes)) v != null && v !== false && e.setAttribute(k, v)
	e.append(...children)
	return e
}

// --- what flows -----------------------------------------------------------------------------------

// A flow is what is served, what is shed before any work was done, and what fails, per second.

// split parts a rate as its counts have grown since the oldest report that is remembered.
function split(rate, app, countsOf) {
	const now = countsOf(app), old = reports.length > 1 ? countsOf(reports[0].Apps.find(a => a.Name === app.Name)) : {}
	const grown = Object.keys(now).map(k => [k, Math.max(0, now[k] - (old[k] ?? 0))])
	const all = grown.reduce((sum, [, n]) => sum + n, 0)
	return Object.fromEntries(grown.map(([k, n]) => [k, all ? rate * n / all : 0]))
}

// answers is the flow of so many of an app's answers. Who got those of 5xx is not known: everybody has a share of them.
function answers(app, n) {
	const failed = n * app.Now.Errors / (app.Now.Requests || 1)
	return { served: n - failed, shed: 0, failed }
}

const answered = (app, caller) => (app.Now.Calls?.[caller] ?? 0) - (app.Now.Failed?.[caller] ?? 0)

// called is the flow of one app's calls of another.
function called(app, caller) {
	const unanswered = app.Now.Failed?.[caller] ?? 0, { served, failed } = answers(app, answered(app, caller))
	const errorsOf = a => ({ ...a?.PerCaller?.find(c => c.Caller === caller)?.Errors, canceled: 0 }) // given up: nobody's failure
	const shed = split(unanswered, app, errorsOf).overloaded ?? 0
	return { served, shed, failed: failed + unanswered - shed }
}

const sum = (app, of) => (app.PerCaller ?? []).reduce((all, c) => all + of(c.Caller), 0)

// flow is that of an app. What lives elsewhere is known by its callers alone.
function flow(app) {
	if (app.Isolation !== 'remote') return { ...answers(app, app.Now.Requests), shed: app.Now.Shed }
	return Object.fromEntries(['served', 'shed', 'failed'].map(k => [k, sum(app, caller => called(app, caller)[k])]))
}

// fromClients is what the calls of apps leave of an app's flow.
function fromClients(app) {
	const rest = answers(app, Math.max(0, app.Now.Requests - sum(app, caller => answered(app, caller))))
	return { ...rest, shed: Math.max(0, app.Now.Shed - sum(app, caller => called(app, caller).shed)) }
}

// say puts a flow in words: the first are good, and the others bad.
const say = flow => Object.entries(flow).filter(([, n], i) => !i || n >= .05).map(([what, n]) => `${rate(n)}/s ${what}`)

// reasons says why an app sheds, the most frequent first.
function reasons(app) {
	const why = split(app.Now.Shed, app, a => ({ 'queue full': a?.QueueFull ?? 0, 'waited too long': a?.WaitTooLong ?? 0, 'pushed out by newer ones': a?.PushedOut ?? 0, 'deadline too near': a?.Deadline ?? 0 }))
	const parts = Object.entries(why).filter(([, n]) => n >= .05).sort((a, b) => b[1] - a[1])
	return parts.length ? `Shed: ${parts.map(([k, n]) => `${rate(n)}/s ${k}`).join(', ')}` : ''
}

// --- what to do -----------------------------------------------------------------------------------

const urgent = ['restarts', 'down', 'hangs', 'downstream', 'backend', 'raise', 'processors', 'connections', 'fails']

function showHealth(report) {
	byId('health').textContent = report.Ready ? `Not ready: ${report.Ready.replace(/watt: /g, '')}` : 'Ready'
	byId('health').className = report.Ready ? 'hot-text' : ''
	byId('machine').textContent = `${rate(report.Processors - report.Idle)} of ${report.Processors} processors in use`
	const advice = (report.Advice ?? []).map(a => element('li', { class: urgent.includes(a.Kind) ? 'hot' : 'warm' }, element('strong', {}, a.App), `: ${a.Text}`))
	byId('advice').replaceChildren(...(advice.length ? advice : [element('li', { class: 'quiet' }, 'Nothing: no app has more to do than it can.')]))
}

// --- the picture ----------------------------------------------------------------------------------

// arrowsOf returns who calls whom; '' are the clients.
function arrowsOf(apps) {
	const arrows = apps.filter(a => a.Addr).map(a => ({ from: '', to: a.Name, flow: fromClients(a) }))
	for (const a of apps) for (const callee of a.Calls ?? []) {
		const to = apps.find(b => b.Name === callee)
		if (to) arrows.push({ from: a.Name, to: callee, flow: called(to, a.Name) })
	}
	return arrows
}

const svgNames = 'http://www.w3.org/2000/svg'
function svg(name, attributes = {}, ...children) {
	const e = document.createElementNS(svgNames, name)
	for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
	e.append(...children)
	return e
}

function line({ xs, first, flow }, rows) {
	const way = xs.slice(1).map((x, i) => {
		const top = rows[first + i].bottom, bottom = rows[first + i + 1].top - (i + 2 === xs.length ? 3 : 0), third = (bottom - top) / 3
		return `${i ? 'L' : 'M'}${xs[i]} ${top} C${xs[i]} ${top + third} ${x} ${bottom - third} ${x} ${bottom}`
	})
	return svg('path', { class: say(flow).length > 1 ? 'edge fails' : 'edge', d: way.join(' '), 'marker-end': 'url(#arrow)' })
}

const parts = (...texts) => element('span', {}, ...texts.map(t => t instanceof Node ? t : element('span', {}, t)))

// words are what is written at an arrow; nothing if nothing flows.
function words({ from, to, flow }, at) {
	if (Object.values(flow).every(n => n < .05)) return []
	return [element('p', { class: 'flow', style: at && `left:${at.x}px;top:${at.y}px` },
		element('span', { class: 'who' }, `${from || 'clients'} → ${to} `), ...say(flow).map((text, i) => element('span', { class: i ? 'fails' : null }, `${text} `)))]
}

function node(app, at) {
	const [good, ...bad] = say(flow(app))
	const dots = element('span', { class: 'dots', 'aria-hidden': true }, ...(app.PerInstance ?? []).slice(0, 8).map(one =>
		element('i', { class: serves(one.State) ? 'calm' : one.State === 'failed' ? 'hot' : 'dead' })))
	return element('a', { class: `box ${colour(app)}`, href: `#${encodeURIComponent(app.Name)}`, title: reasons(app), style: at && `left:${at.x}px;top:${at.row.top}px` },
		parts(element('strong', {}, app.Name), !alive(app) ? app.State : workers(app) ? percent(Math.min(1, app.Now.Saturation)) : ''),
		parts(good, `p99 ${duration(app.Now.P99)}`),
		parts(dots, out(app) || (app.Queued ? `${app.Queued} wait` : '')),
		element('span', { class: 'fails' }, bad.join(', ')))
}

function drawing(apps, arrows, { boxes, rows, width, height }) {
	const spot = a => {
		const next = rows[a.first + 1]
		return a.label ? { x: a.label.x, y: rows[a.first].bottom + a.label.t * (next.top - rows[a.first].bottom) } : { x: a.xs[1], y: (next.top + next.bottom) / 2 }
	}
	const head = svg('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto' }, svg('path', { d: 'M0 0 L8 4 L0 8 z' }))
	return element('div', { class: 'drawing', style: `width:${width}px;height:${height}px` },
		svg('svg', { viewBox: `${-width / 2} 0 ${width} ${height}`, width, height, 'aria-hidden': true }, head, ...arrows.map(a => line(a, rows))),
		element('div', {}, element('p', { class: 'clients' }, 'clients'), ...arrows.flatMap(a => words(a, spot(a))), ...apps.map(a => node(a, boxes.get(a.Name)))))
}

// list is for where the drawing does not fit: boxes with what leaves them, the most urgent first.
function list(apps, arrows) {
	const urgency = a => ['dead', 'hot', 'warm', 'calm'].indexOf(colour(a))
	return element('div', { class: 'list' }, ...apps.toSorted((a, b) => urgency(a) - urgency(b)).map(app =>
		element('div', {}, node(app), ...arrows.filter(a => (a.from || a.to) === app.Name).flatMap(a => words(a)))))
}

function showPicture(apps) {
	const frame = byId('picture'), arrows = arrowsOf(apps), found = layout(apps, arrows)
	const focused = document.activeElement?.closest?.('#picture a')?.getAttribute('href')
	frame.replaceChildren(found.width > frame.clientWidth ? list(apps, arrows) : drawing(apps, arrows, found))
	if (focused) frame.querySelector(`a[href="${CSS.escape(focused)}"], a[href="${focused}"]`)?.focus({ preventScroll: true })
}

// --- the table ------------------------------------------------------------------------------------

function row(app) {
	const n = app.Now, restarts = (app.PerInstance ?? []).reduce((sum, i) => sum + (i.Restarts ? i.Restarts.ended ?? 0 : 0) + (i.Restarts?.killed ?? 0) + (i.Restarts?.start ?? 0), 0)
	const button = element('button', { type: 'button', 'data-app': app.Name }, app.Name)
	button.onclick = () => {
		location.hash = encodeURIComponent(app.Name)
		choose()
	}
	const cell = (text, bad) => element('td', { class: bad }, text)
	return element('tr', { 'data-app': app.Name, title: reasons(app) },
		element('th', { scope: 'row' }, button),
		cell([app.State, alive(app) && out(app)].filter(Boolean).join(', '), !alive(app) ? 'hot' : out(app) ? 'warm' : null),
		...Object.values(flow(app)).map((rated, i) => cell(rate(rated), i && rated > 0 ? 'hot' : null)),
		cell(duration(n.P50)), cell(duration(n.P99)), cell(duration(n.Wait99), n.Wait99 > .02 ? 'warm' : null),
		cell(workers(app) ? `${app.Busy} / ${workers(app)}` : '–'),
		cell(percent(n.Utilisation), n.Utilisation >= .9 ? 'hot' : n.Utilisation >= .7 ? 'warm' : null),
		cell(`${app.Queued} / ${Math.max(0, app.Queue)}`, app.Overloaded ? 'hot' : null), cell(restarts, restarts ? 'warm' : null))
}

function showApps(apps) {
	const focused = document.activeElement?.dataset?.app
	byId('apps').replaceChildren(...apps.map(row))
	if (focused) byId('apps').querySelector(`button[data-app="${CSS.escape(focused)}"]`)?.focus()
}

// --- one app --------------------------------------------------------------------------------------

let shown = ''

// typed says whether somebody has changed an input: its defaultValue is what is in force.
const typed = input => input.value !== input.defaultValue

function showLimits(form, limits) {
	for (const [name, inForce] of Object.entries(limits)) {
		const input = form.elements[name], follows = !typed(input)
		input.defaultValue = inForce
		if (follows) input.value = inForce
	}
}

function showApp(apps) {
	const app = apps.find(a => a.Name === chosen.app)
	byId('app').hidden = !app
	if (!app) return
	byId('app-title').textContent = `${app.Name}, ${app.Profile}, ${app.Isolation}`
	byId('shed').textContent = reasons(app)
	const form = byId('limits')
	form.hidden = app.Isolation === 'remote'
	if (shown !== app.Name) {
		shown = app.Name
		form.reset()
		tell('')
	}
	showLimits(form, { workers: app.Workers, queue: app.Queue, instances: app.Instances })
	const focused = document.activeElement?.dataset?.act
	byId('instances').replaceChildren(...(app.PerInstance ?? []).map(one => {
		const button = (verb, name, done) => {
			const b = element('button', { type: 'button', 'data-act': `${verb} ${one.Instance}` }, `${name} ${one.Instance}`)
			b.onclick = () => act('POST', `apps/${encodeURIComponent(app.Name)}/instances/${one.Instance}/${verb}`, null, `instance ${one.Instance} of ${app.Name} was ${done}`)
			return b
		}
		const more = one.PID ? `process ${one.PID}, ${Math.round(one.Memory / 2 ** 20)} MiB` : ''
		const item = element('li', {}, button('restart', 'Restart', 'restarted'), button('drain', 'Drain', 'drained'), element('span', { class: serves(one.State) ? null : one.State === 'failed' ? 'badge hot' : 'badge dead' }, one.State), element('span', {}, `generation ${one.Generation}`), element('span', {}, `${one.Busy} busy`), element('span', {}, more))
		if (one.LastError) item.append(element('pre', {}, one.LastError))
		return item
	}))
	if (focused) byId('instances').querySelector(`button[data-act="${focused}"]`)?.focus()
}

byId('limits').onsubmit = async event => {
	event.preventDefault()
	const app = shown, changed = [...event.target.querySelectorAll('input')].filter(typed) // others may have changed the rest
	if (!changed.length) return tell(`nothing was changed: these are the limits of ${app}`)
	const limits = Object.fromEntries(changed.map(i => [i.name, Number(i.value)]))
	const done = await act('PATCH', `apps/${encodeURIComponent(app)}`, limits, `the limits of ${app} were changed`)
	if (done && app === shown) for (const i of changed) i.defaultValue = limits[i.name]
}

// --- actions --------------------------------------------------------------------------------------

// token asks for the token, and returns '' if there is none to be had.
function token() {
	const dialog = byId('ask'), input = dialog.querySelector('input')
	input.value = ''
	dialog.returnValue = ''
	dialog.showModal()
	return new Promise(resolve => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'ok' ? input.value : ''), { once: true }))
}

const tell = text => { byId('did').textContent = text }

// act has something done, tells what became of it, and returns true if it was done.
async function act(method, path, body, done) {
	const kept = 'watt-token'
	for (let given = sessionStorage.getItem(kept) ?? ''; ; ) {
		let response
		try {
			response = await fetch(at(path), { method, body: body && JSON.stringify(body), headers: given ? { Authorization: `Bearer ${given}` } : {} }) // the browser may have the token
		} catch (error) { // nobody answers, or the token cannot be a header
			return tell(`Not done: ${error}`)
		}
		if (response.status !== 401) {
			sessionStorage.setItem(kept, given)
			const text = (await response.text()).trim() // of what is done, what had to be cut
			tell(!response.ok ? `Not done: ${text}` : text ? `${done}; ${text}` : done)
			return response.ok
		}
		given = await token()
		if (!given) return tell('Not done: actions need the token')
	}
}

// --- charts ---------------------------------------------------------------------------------------

const what = [
	{ title: 'Served per second', of: f => f.Requests - f.Errors },
	{ title: 'Shed and failed per second', of: f => f.Shed + f.Errors },
	{ title: 'Latency, p99, ms', of: f => 1000 * f.P99 },
	{ title: 'Workers busy, %', of: f => 100 * f.Utilisation },
]
const colours = ['#3b82f6', '#e11d48', '#10b981', '#f59e0b', '#8b5cf6', '#06b6d4', '#ec4899', '#84cc16', '#a16207', '#64748b']
const clock = uPlot.fmtDate('{HH}:{mm}:{ss}')
let points = [], charts = []

function drawCharts() {
	const names = Object.keys(points.at(-1)?.Apps ?? {}).sort() // so that a colour stays an app's
	const ink = getComputedStyle(document.body).getPropertyValue('--soft')
	const grid = { stroke: getComputedStyle(document.body).getPropertyValue('--line'), width: 1 }
	for (const c of charts) c.chart.destroy()
	charts = what.map(w => {
		const frame = element('div', { role: 'img', 'aria-label': `${w.title} of each app; the table has the latest` })
		const chart = new uPlot({
			title: w.title, width: 400, height: 220,
			scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
			axes: [{ stroke: ink, grid, space: 70, values: (_, times) => times.map(t => clock(new Date(1000 * t))) }, { stroke: ink, grid, size: 56 }],
			series: [{ value: '{HH}:{mm}:{ss}' }, ...names.map((name, i) => ({ label: name, stroke: colours[i % colours.length], width: 1.5, value: (_, v) => v == null ? '–' : rate(v) }))],
		}, data(w, names), frame)
		return { w, names, frame, chart }
	})
	byId('charts').replaceChildren(...charts.map(c => c.frame))
	fit()
}

const data = (w, names) => [points.map(p => Date.parse(p.Time) / 1000), ...names.map(name => points.map(p => p.Apps[name] ? w.of(p.Apps[name]) : null))]

function fit() {
	for (const { chart, frame } of charts) chart.setSize({ width: Math.max(200, frame.clientWidth - 16), height: 220 })
}
addEventListener('resize', fit)
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawCharts)

async function loadHistory() {
	const response = await fetch(at('history')).catch(() => null)
	if (!response?.ok) return
	points = await response.json()
	drawCharts()
}

function addPoint(report) {
	const age = point => Date.parse(report.Time) - Date.parse(point.Time)
	points = points.filter(p => age(p) >= 0) // the clock may have been set back
	if (points.length && age(points.at(-1)) < 5000) return
	points.push({ Time: report.Time, Apps: Object.fromEntries(report.Apps.map(a => [a.Name, a.Now])) })
	points = points.slice(-180)
	if (charts.length) for (const c of charts) c.chart.setData(data(c.w, c.names))
	else drawCharts()
}

// --- what comes in --------------------------------------------------------------------------------

function show(report) {
	reports = [...reports.filter(r => Math.abs(Date.parse(report.Time) - Date.parse(r.Time)) < 10500), report]
	showHealth(report)
	showPicture(report.Apps)
	showApps(report.Apps)
	showApp(report.Apps)
	addPoint(report)
}

function choose() {
	chosen.app = fromHash()
	if (reports.length) showApp(reports.at(-1).Apps)
	byId('app').scrollIntoView({ block: 'nearest' })
}
addEventListener('hashchange', choose)
addEventListener('resize', () => reports.length && showPicture(reports.at(-1).Apps))

function listen() {
	const events = new EventSource(at('events'))
	events.onopen = () => {
		reports = [] // it may be another program by now
		loadHistory()
	}
	events.onmessage = message => show(JSON.parse(message.data))
	events.onerror = () => {
		byId('health').textContent = 'No connection to the program; trying again …'
		byId('health').className = 'hot-text'
		if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000) // else the browser tries
	}
}
listen()
