// A chart of clicks over time, drawn by uPlot. Parts of the time stand side by side, all as wide: bars while
// there is room for them, lines when there are many. What is not over is drawn paler. Everything in it stands
// in a table, too, which the caller makes: a picture is not for everyone.

import uPlot from '../vendor/uplot.js'
import { color } from '../ui.js'

/** @typedef {{label: string, long: string, open: boolean, now: number | null, before: number | null}} Point
 * @typedef {{points: Point[], names: {now: string, before: string}, label: string, n: (v: number) => string, compact: (v: number) => string,
 *   pick?: (first: number, last: number) => void}} Chart `pick` hears which points somebody has marked */

/** Whether there is room for bars. @param {number} points @param {number} width of the host, in pixels */
export const barsFit = (points, width) => points <= Math.min(120, (width - 60) / 5)
const height = 232

/** @param {HTMLElement} host empty, and visible when it is drawn
 * @returns {{draw: (chart: Chart) => void, close: () => void}} */
export function chart(host) {
  host.classList.add('chart')
  const tip = document.createElement('div')
  tip.className = 'chart-tip'
  tip.hidden = true
  /** @type {uPlot | undefined} */
  let plot
  /** @type {Chart | undefined} */
  let shown
  let shape = ''

  const tint = (/** @type {string} */ token, /** @type {number} */ alpha) => color(token).replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`)

  /** @param {Chart} next */
  const draw = (next) => {
    shown = next
    host.setAttribute('role', 'img')
    host.setAttribute('aria-label', next.label)
    const n = next.points.length
    const bars = barsFit(n, host.clientWidth)
    const compared = next.points.some((p) => p.before !== null)
    /** @type {uPlot.AlignedData} */
    const data = [next.points.map((_, i) => i), ...(compared ? [next.points.map((p) => p.before)] : []), next.points.map((p) => p.now)]
    // uPlot keeps its scales and series from when it was made. Of the same shape, only the numbers change.
    const wanted = `${n} ${bars} ${compared} ${Boolean(next.pick)}`
    if (plot && wanted === shape) {
      plot.setData(data)
      return
    }
    plot?.destroy()
    shape = wanted
    plot = new uPlot(options(n, bars, compared), data, host)
    plot.over.append(tip)
  }

  /** @param {number} n @param {boolean} bars @param {boolean} compared @returns {uPlot.Options} */
  const options = (n, bars, compared) => {
    const points = () => /** @type {Chart} */ (shown).points
    const font = `12px ${getComputedStyle(host).fontFamily}`
    // The time before stands behind this one, wider and paler: what it had more is seen above.
    /** @param {number} share of the room @param {(i: number) => string} fill @returns {uPlot.Series} */
    const barred = (share, fill) => ({
      stroke: 'transparent', width: 0, points: { show: false },
      paths: /** @type {any} */ (uPlot.paths).bars({ size: [share, 56 * share], radius: n > 60 ? 0 : 0.1, disp: { fill: { unit: 3, values: () => points().map((_, i) => fill(i)) } } }),
    })
    /** @type {uPlot.Series} */
    const now = bars ? barred(compared ? 0.55 : 0.75, (i) => (points()[i].open ? tint('--series-1', 0.5) : color('--series-1')))
      : { stroke: () => color('--series-1'), fill: () => tint('--series-1', 0.12), width: 1.5, points: { show: false } }
    /** @type {uPlot.Series} */
    const before = bars ? barred(0.85, () => tint('--series-before', 0.35))
      : { stroke: () => color('--series-before'), width: 1.5, dash: [4, 4], points: { show: false } }
    return {
      width: Math.max(host.clientWidth, 200), height,
      padding: [12, 28, 0, 0], // half of the last name stands beyond the last point
      legend: { show: false },
      scales: {
        x: { time: false, range: () => (bars ? [-0.5, n - 0.5] : [0, Math.max(1, n - 1)]) },
        y: { range: (_, __, max) => [0, max > 0 ? Math.max(max * 1.05, 4) : 4] },
      },
      cursor: {
        y: false, points: { show: false },
        drag: { x: Boolean(shown?.pick), y: false, setScale: false },
      },
      axes: [
        {
          stroke: () => color('--muted'), font, size: 24, gap: 6, grid: { show: false }, ticks: { show: false },
          splits: (u) => ticks(points(), u.bbox.width / devicePixelRatio),
          values: (_, at) => at.map((i) => points()[i]?.label ?? ''),
        },
        {
          stroke: () => color('--muted'), font, size: 48, gap: 8, ticks: { show: false }, space: 48,
          grid: { stroke: () => color('--line'), width: 1 },
          incrs: [1, 2, 5, 10, 20, 25, 50].concat([1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9].flatMap((x) => [x, 2 * x, 2.5 * x, 5 * x])),
          values: (_, at) => at.map((v) => shown?.compact(v) ?? ''),
        },
      ],
      series: [
        {},
        ...(compared ? [before] : []),
        now,
      ],
      hooks: {
        setCursor: [tell],
        setSelect: [(u) => {
          const first = Math.ceil(u.posToVal(u.select.left, 'x') - (bars ? 0.5 : 0))
          const last = Math.floor(u.posToVal(u.select.left + u.select.width, 'x') + (bars ? 0.5 : 0))
          const wide = u.select.width > 8
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
          if (wide && last > first) shown?.pick?.(Math.max(0, first), Math.min(n - 1, last))
        }],
      },
    }
  }

  /** Says what is under the pointer. @param {uPlot} u */
  const tell = (u) => {
    const { left = -1, idx } = u.cursor
    const p = typeof idx === 'number' && left >= 0 ? shown?.points[idx] : undefined
    tip.hidden = !p || !shown
    if (!p || !shown) return
    const lines = [p.long, p.now === null ? '' : `${shown.names.now}: ${shown.n(p.now)}`, p.before === null ? '' : `${shown.names.before}: ${shown.n(p.before)}`]
    tip.replaceChildren(...lines.filter(Boolean).map((text, i) => {
      const line = document.createElement('div')
      line.className = ['chart-tip-when', 'chart-tip-now', 'chart-tip-before'][lines[1] || i === 0 ? i : 2]
      line.textContent = text
      return line
    }))
    // Beside what it tells about, on the side where there is room.
    const at = u.valToPos(/** @type {number} */ (idx), 'x')
    const x = at + 16 + tip.offsetWidth <= u.over.clientWidth ? at + 16 : Math.max(0, at - 16 - tip.offsetWidth)
    tip.style.transform = `translateX(${Math.round(x)}px)`
  }

  const again = () => plot?.redraw(true, true)
  const sized = new ResizeObserver(() => {
    if (!plot || host.clientWidth === 0 || plot.width === host.clientWidth) return
    plot.setSize({ width: host.clientWidth, height })
    if (shown) draw(shown)
  })
  sized.observe(host)
  const themed = new MutationObserver(again)
  themed.observe(document.documentElement, { attributeFilter: ['data-theme'] })
  const dark = matchMedia('(prefers-color-scheme: dark)')
  dark.addEventListener('change', again)
  return {
    draw,
    close() {
      sized.disconnect()
      themed.disconnect()
      dark.removeEventListener('change', again)
      plot?.destroy()
    },
  }
}

/** Which points are named below the chart: as many as there is room for, evenly, and the last one rather than
 * the first. @param {Point[]} points @param {number} width in pixels */
function ticks(points, width) {
  const longest = Math.max(...points.map((p) => p.label.length))
  const every = Math.max(1, Math.ceil(points.length / Math.max(1, Math.floor(width / (longest * 6.5 + 20)))))
  return points.map((_, i) => i).filter((i) => (points.length - 1 - i) % every === 0)
}
