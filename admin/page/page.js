// The admin page: a report comes every second, and everything is drawn from it.

function fromHash() {
	try { return decodeURIComponent(location.hash.slice(1)) } catch { return '' } // somebody has typed it
}

const byId = id => document.getElementById(id)
const chosen = { app: fromHash() }
let last = null

// --- what is what ---------------------------------------------------------------------------------

const workers = app => Math.max(0, app.Workers) * (app.PerInstance ?? []).length

// load is how much of what an app can do it has to do: 1 is all.
function load(app) {
	const n = workers(app)
	if (!n) return 0
	const used = app.Profile === 'iobound' ? (app.Busy + app.Queued) / n : app.Now.Utilisation
	return app.Now.Shed > 0 ? Math.max(1, used) : used
}

const alive = app => app.State === 'ready' || app.State === 'new' || app.Isolation === 'remote'
const colour = app => !alive(app) ? 'dead' : load(app) >= .9 ? 'hot' : load(app) >= .7 ? 'warm' : 'calm'

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

// --- what to do -----------------------------------------------------------------------------------

const urgent = ['restarts', 'down', 'downstream', 'backend', 'raise', 'processors']

function showHealth(report) {
	byId('health').textContent = report.Ready ? `Not ready: ${report.Ready.replace(/watt: /g, '')}` : 'Ready'
	byId('health').className = report.Ready ? 'hot-text' : ''
	byId('machine').textContent = `${rate(report.Processors - report.Idle)} of ${report.Processors} processors in use`
	const advice = (report.Advice ?? []).map(a => element('li', { class: urgent.includes(a.Kind) ? 'hot' : 'warm' }, element('strong', {}, a.App), `: ${a.Text}`))
	byId('advice').replaceChildren(...(advice.length ? advice : [element('li', { class: 'quiet' }, 'Nothing: no app has more to do than it can.')]))
}

// --- the picture ----------------------------------------------------------------------------------

const box = { width: 168, height: 74, gapX: 28, gapY: 74 }

// ranks puts each app one row below the lowest of those that call it.
function ranks(apps) {
	const rank = new Map(apps.map(a => [a.Name, 1]))
	for (let i = 0; i < apps.length; i++) { // calls have no cycles
		for (const a of apps) for (const callee of a.Calls ?? []) {
			if (rank.has(callee)) rank.set(callee, Math.max(rank.get(callee), rank.get(a.Name) + 1))
		}
	}
	return rank
}

// layout returns where the middle of each box is, and how large the picture is.
function layout(apps) {
	const rank = ranks(apps), rows = []
	for (const a of apps) (rows[rank.get(a.Name)] ??= []).push(a.Name)
	const used = rows.filter(Boolean)
	const widest = Math.max(1, ...used.map(r => r.length))
	const width = widest * (box.width + box.gapX) + box.gapX
	const at = new Map([['', { x: width / 2, y: 24 }]])
	used.forEach((names, row) => names.forEach((name, i) => at.set(name, {
		x: width * (i + .5) / names.length,
		y: 24 + box.gapY + box.height / 2 + row * (box.height + box.gapY),
	})))
	return { at, width, height: 24 + used.length * (box.height + box.gapY) + 20 }
}

const svgNames = 'http://www.w3.org/2000/svg'
function svg(name, attributes = {}, ...children) {
	const e = document.createElementNS(svgNames, name)
	for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
	e.append(...children)
	return e
}

// edge draws an arrow from one middle to another, with what flows along it.
function edge(from, to, text, fails) {
	const top = from.y + (from.y < 30 ? 12 : box.height / 2), bottom = to.y - box.height / 2 - 3
	const middle = (top + bottom) / 2
	const path = `M${from.x} ${top} C${from.x} ${middle} ${to.x} ${middle} ${to.x} ${bottom}`
	const label = { x: from.x + (to.x - from.x) * .62, y: top + (bottom - top) * .68 }
	const line = svg('path', { class: `edge ${fails ? 'fails' : ''}`, d: path, 'marker-end': 'url(#arrow)' })
	if (!text) return [line]
	const width = 7 * text.length + 8
	return [line,
		svg('rect', { class: 'back', x: label.x - width / 2, y: label.y - 12, width, height: 16, rx: 3 }),
		svg('text', { class: fails ? 'fails' : 'small', x: label.x, y: label.y, 'text-anchor': 'middle' }, text)]
}

function node(app, { x, y }) {
	const left = x - box.width / 2, top = y - box.height / 2
	const link = svg('a', { href: `#${encodeURIComponent(app.Name)}`, 'aria-label': `${app.Name}: ${app.State}, ${percent(load(app))} of what it can do` })
	link.append(
		svg('rect', { class: `box ${colour(app)}`, x: left, y: top, width: box.width, height: box.height, rx: 6 }),
		svg('text', { class: 'name', x: left + 10, y: top + 21 }, app.Name),
		svg('text', { x: left + box.width - 10, y: top + 21, 'text-anchor': 'end' }, workers(app) ? percent(load(app)) : ''),
		svg('text', { class: 'small', x: left + 10, y: top + 40 }, `${rate(app.Now.Requests)}/s  p99 ${duration(app.Now.P99)}`))
	const bad = app.Now.Errors + app.Now.Shed
	if (bad > 0) link.append(svg('text', { class: 'fails', x: left + box.width - 10, y: top + 62, 'text-anchor': 'end' }, `${rate(bad)}/s fail`))
	for (const [i, one] of (app.PerInstance ?? []).slice(0, 8).entries()) {
		link.append(svg('circle', { class: `dot ${one.State === 'ready' || one.State === 'new' ? 'calm' : one.State === 'failed' ? 'hot' : 'dead'}`, cx: left + 15 + 14 * i, cy: top + 58, r: 5 }))
	}
	return link
}

function showPicture(apps) {
	const { at, width, height } = layout(apps)
	const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group' })
	const arrow = svg('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto' })
	arrow.append(svg('path', { d: 'M0 0 L8 4 L0 8 z', fill: 'var(--soft)' }))
	drawing.append(arrow, svg('text', { x: width / 2, y: 24, 'text-anchor': 'middle' }, 'clients'))
	for (const a of apps) {
		if (a.Addr) drawing.append(...edge(at.get(''), at.get(a.Name), '', false))
		for (const callee of a.Calls ?? []) {
			const to = apps.find(b => b.Name === callee)
			if (!to) continue
			const calls = to.Now.Calls?.[a.Name] ?? 0, failed = to.Now.Failed?.[a.Name] ?? 0
			drawing.append(...edge(at.get(a.Name), at.get(callee), failed ? `${rate(calls)}/s, ${rate(failed)} fail` : calls ? `${rate(calls)}/s` : '', failed > 0))
		}
	}
	for (const a of apps) drawing.append(node(a, at.get(a.Name)))
	const focused = document.activeElement?.closest?.('#picture a')?.getAttribute('href')
	byId('picture').replaceChildren(drawing)
	if (focused) byId('picture').querySelector(`a[href="${CSS.escape(focused)}"], a[href="${focused}"]`)?.focus()
}

// --- the table ------------------------------------------------------------------------------------

function row(app) {
	const n = app.Now, restarts = (app.PerInstance ?? []).reduce((sum, i) => sum + (i.Restarts ? i.Restarts.ended ?? 0 : 0) + (i.Restarts?.killed ?? 0) + (i.Restarts?.start ?? 0), 0)
	const choose = element('button', { type: 'button', 'data-app': app.Name }, app.Name)
	choose.onclick = () => { location.hash = encodeURIComponent(app.Name); byId('app').scrollIntoView({ block: 'nearest' }) }
	const cell = (text, bad) => element('td', { class: bad }, text)
	return element('tr', { 'data-app': app.Name },
		element('th', { scope: 'row' }, choose),
		cell(app.State, alive(app) ? null : 'hot'),
		cell(rate(n.Requests)), cell(rate(n.Errors), n.Errors > 0 ? 'hot' : null), cell(rate(n.Shed), n.Shed > 0 ? 'hot' : null),
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
function showApp(apps) {
	const app = apps.find(a => a.Name === chosen.app)
	byId('app').hidden = !app
	if (!app) return
	byId('app-title').textContent = `${app.Name}, ${app.Profile}, ${app.Isolation}`
	const form = byId('limits')
	form.hidden = app.Isolation === 'remote'
	if (shown !== app.Name) { // else somebody may be typing
		shown = app.Name
		form.elements.workers.value = form.elements.workers.defaultValue = app.Workers
		form.elements.queue.value = form.elements.queue.defaultValue = app.Queue
		form.elements.instances.value = form.elements.instances.defaultValue = app.Instances
		byId('did').textContent = ''
	}
	const focused = document.activeElement?.dataset?.act
	byId('instances').replaceChildren(...(app.PerInstance ?? []).map(one => {
		const button = (verb, name, done) => {
			const b = element('button', { type: 'button', 'data-act': `${verb} ${one.Instance}` }, `${name} ${one.Instance}`)
			b.onclick = () => act('POST', `apps/${encodeURIComponent(app.Name)}/instances/${one.Instance}/${verb}`, null, `instance ${one.Instance} of ${app.Name} was ${done}`)
			return b
		}
		const more = one.PID ? `process ${one.PID}, ${Math.round(one.Memory / 2 ** 20)} MiB` : ''
		const item = element('li', {}, button('restart', 'Restart', 'restarted'), button('drain', 'Drain', 'drained'), element('span', {}, one.State), element('span', {}, `generation ${one.Generation}`), element('span', {}, `${one.Busy} busy`), element('span', {}, more))
		if (one.LastError) item.append(element('pre', {}, one.LastError))
		return item
	}))
	if (focused) byId('instances').querySelector(`button[data-act="${focused}"]`)?.focus()
}

byId('limits').onsubmit = event => {
	event.preventDefault()
	const changed = [...event.target.querySelectorAll('input')].filter(i => i.value !== i.defaultValue) // others may have changed the rest
	const limits = Object.fromEntries(changed.map(i => [i.name, Number(i.value)]))
	act('PATCH', `apps/${encodeURIComponent(chosen.app)}`, limits, `the limits of ${chosen.app} were changed`)
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

async function act(method, path, body, done) {
	const kept = 'watt-token'
	const say = text => { byId('did').textContent = text }
	for (let given = sessionStorage.getItem(kept) ?? ''; ; ) {
		let response
		try {
			response = await fetch(path, { method, body: body && JSON.stringify(body), headers: { Authorization: `Bearer ${given}` } })
		} catch (error) { // nobody answers, or the token cannot be a header
			return say(`Not done: ${error}`)
		}
		if (response.status !== 401) {
			sessionStorage.setItem(kept, given)
			return say(response.ok ? done : `Not done: ${(await response.text()).trim()}`)
		}
		given = await token()
		if (!given) return say('Not done: actions need the token')
	}
}

// --- charts ---------------------------------------------------------------------------------------

const what = [
	{ title: 'Requests per second', of: f => f.Requests },
	{ title: 'Errors and shed requests per second', of: f => f.Errors + f.Shed },
	{ title: 'Latency, p99, ms', of: f => 1000 * f.P99 },
	{ title: 'Workers busy, %', of: f => 100 * f.Utilisation },
]
const colours = ['#3b82f6', '#e11d48', '#10b981', '#f59e0b', '#8b5cf6', '#06b6d4', '#ec4899', '#84cc16', '#a16207', '#64748b']
let points = [], charts = []

function drawCharts() {
	const names = Object.keys(points.at(-1)?.Apps ?? {})
	const ink = getComputedStyle(document.body).getPropertyValue('--soft')
	const grid = { stroke: getComputedStyle(document.body).getPropertyValue('--line'), width: 1 }
	for (const c of charts) c.chart.destroy()
	charts = what.map(w => {
		const frame = element('div', { role: 'img', 'aria-label': `${w.title} of each app; the table has the latest` })
		const chart = new uPlot({
			title: w.title, width: 400, height: 220,
			scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
			axes: [{ stroke: ink, grid }, { stroke: ink, grid, size: 56 }],
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
	const response = await fetch('history').catch(() => null)
	if (!response?.ok) return
	points = await response.json()
	drawCharts()
}

function addPoint(report) {
	if (points.length && Date.parse(report.Time) - Date.parse(points.at(-1).Time) < 5000) return
	points.push({ Time: report.Time, Apps: Object.fromEntries(report.Apps.map(a => [a.Name, a.Now])) })
	points = points.slice(-180)
	if (charts.length) for (const c of charts) c.chart.setData(data(c.w, c.names))
	else drawCharts()
}

// --- what comes in --------------------------------------------------------------------------------

function show(report) {
	last = report
	showHealth(report)
	showPicture(report.Apps)
	showApps(report.Apps)
	showApp(report.Apps)
	addPoint(report)
}

addEventListener('hashchange', () => {
	chosen.app = fromHash()
	if (last) showApp(last.Apps)
})

function listen() {
	const events = new EventSource('events')
	events.onopen = loadHistory
	events.onmessage = message => show(JSON.parse(message.data))
	events.onerror = () => {
		byId('health').textContent = 'No connection to the program; trying again …'
		byId('health').className = 'hot-text'
		if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000) // else the browser tries
	}
}
listen()
