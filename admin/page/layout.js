// Where the boxes and arrows of the picture are.

// Pixels: of a box, of a passage between boxes, of what is written at an arrow, and of the row of clients.
const size = { width: 180, height: 88, apart: 20, pass: 96, label: 88, lane: 46, clients: 24 }

// ranks puts each app one row below the lowest of those that call it.
function ranks(apps) {
	const rank = new Map([['', 0], ...apps.map(a => [a.Name, 1])])
	for (let i = 0; i < apps.length; i++) { // calls have no cycles
		for (const a of apps) for (const callee of a.Calls ?? []) {
			if (rank.has(callee)) rank.set(callee, Math.max(rank.get(callee), rank.get(a.Name) + 1))
		}
	}
	return rank
}

// place puts a row's items beside each other, and returns how wide they are.
function place(items) {
	const width = items.reduce((sum, i) => sum + i.width, 0)
	let left = -width / 2
	for (const i of items) {
		i.x = left + i.width / 2
		left += i.width
	}
	return width
}

const bend = t => t * t * (3 - 2 * t) // how far to the side an arrow is when it is t of the way down

// lanes writes at arrows where nothing else is written, in as few lines below each other as it takes, and returns how many.
function lanes(arrows) {
	for (let count = 1; ; count++) {
		const taken = []
		for (const a of arrows) {
			for (let lane = 1; lane <= count; lane++) {
				const t = lane / (count + 1), x = a.xs[0] + (a.xs[1] - a.xs[0]) * bend(t)
				if (taken.some(l => l.lane === lane && Math.abs(l.x - x) < size.label)) continue
				taken.push({ lane, x })
				a.label = { x, t }
				break
			}
		}
		if (taken.length === arrows.length) return count
	}
}

// layout finds where boxes are; arrows get an x for each row that they touch, and one place to write at. Those that lead
// past a row get a passage through it.
export function layout(apps, arrows) {
	const rank = ranks(apps), boxes = new Map(), rows = []
	for (const a of arrows) Object.assign(a, { first: rank.get(a.from), last: rank.get(a.to), xs: [] })
	for (const [name, r] of rank) (rows[r] ??= { items: [] }).items.push({ name, width: size.width + size.apart })
	for (const [r, row] of rows.entries()) {
		place(row.items)
		for (const a of arrows) if (a.first < r && r < a.last) row.items.push({ arrow: a, width: size.pass, x: a.xs.at(-1) })
		row.width = place(row.items.sort((a, b) => a.x - b.x))
		for (const { name, arrow, x } of row.items) arrow ? arrow.xs.push(x) : boxes.set(name, { x, row })
		for (const a of arrows) if (a.first === r || a.last === r) a.xs.push(boxes.get(a.first === r ? a.from : a.to).x)
	}
	let y = 0
	for (const [r, row] of rows.entries()) {
		row.top = y
		row.bottom = y + (r ? size.height : size.clients)
		y = row.bottom + size.lane * (1 + lanes(arrows.filter(a => a.first === r && a.last === r + 1)))
	}
	return { boxes, rows, width: Math.max(...rows.map(r => r.width)), height: rows.at(-1).bottom }
}
