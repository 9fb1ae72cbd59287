// A map of the world in which each country is as dark as it has clicks. The shapes are Natural Earth's, in
// TopoJSON; the projection is Equal Earth (Šavrič, Patterson and Jenny, 2018, doi:10.1080/13658816.2018.1504949),
// in which areas are true: a choropleth must not make north weigh more. It is a picture beside a table.

import { alpha2, small } from './countries.js'
import { html, nothing, svg } from '../ui.js'

/** @typedef {{code: string, d: string}} Shape
 * @typedef {{type: string, arcs: any, id?: string, properties: {name: string}}} Geometry */

const width = 720, height = 322
const scale = 132
// The edge of the map runs through Bering Strait, where it cuts no country.
const edge = -168.4

/** @param {number} lon @param {number} lat in degrees @returns {[number, number]} on the picture */
function project(lon, lat) {
  const [a1, a2, a3, a4] = [1.340264, -0.081106, 0.000893, 0.003796]
  const east = (lon < edge ? lon + 360 : lon) - edge - 180
  const p = Math.asin((Math.sqrt(3) / 2) * Math.sin((lat * Math.PI) / 180))
  const p2 = p * p
  const p6 = p2 ** 3
  const x = (2 * Math.sqrt(3) * ((east * Math.PI) / 180) * Math.cos(p)) / (3 * (9 * a4 * p6 * p2 + 7 * a3 * p6 + 3 * a2 * p2 + a1))
  const y = p * (a4 * p6 * p2 + a3 * p6 + a2 * p2 + a1)
  return [width / 2 + x * scale, 176 - y * scale]
}

/** @type {Promise<Shape[]> | undefined} */
let loaded

/** @returns {Promise<Shape[]>} */
export function loadMap() {
  loaded ??= fetch('/dashboard/vendor/countries-110m.json').then(async (r) => {
    if (!r.ok) throw new Error(`the map: HTTP ${r.status}`)
    return decode(await r.json())
  })
  loaded.catch(() => (loaded = undefined))
  return loaded
}

/** Reads TopoJSON: each arc is a list of steps on a grid, and a ring names arcs, backwards by the complement.
 * @param {{arcs: [number, number][][], transform: {scale: [number, number], translate: [number, number]}, objects: {countries: {geometries: Geometry[]}}}} topology */
function decode({ arcs, transform, objects }) {
  const lines = arcs.map((arc) => {
    let x = 0, y = 0
    return arc.map(([dx, dy]) => {
      x += dx
      y += dy
      return project(x * transform.scale[0] + transform.translate[0], y * transform.scale[1] + transform.translate[1])
    })
  })
  const ring = (/** @type {number[]} */ indexes) => {
    const points = indexes.flatMap((i) => (i < 0 ? [...lines[~i]].reverse() : lines[i]))
    return `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join('L')}Z`
  }
  return objects.countries.geometries
    .filter((g) => g.properties.name !== 'Antarctica') // nobody lives there, and it would take a sixth of the picture
    .map((g) => ({ code: alpha2(g.id, g.properties.name), d: (g.type === 'Polygon' ? g.arcs : g.arcs.flat()).map(ring).join('') }))
}

/** @param {{shapes: Shape[], clicks: Map<string, number>, chosen: string[], label: string, name: (code: string) => string, n: (v: number) => string,
 *   pick: (code: string) => void}} m by alpha-2 */
export function worldMap({ shapes, clicks, chosen, label, name, n, pick }) {
  const most = Math.max(1, ...clicks.values())
  // Few countries have most clicks: of five shades, each stands for about four times as many as the one before.
  const shade = (/** @type {string} */ code) => {
    const v = clicks.get(code) ?? 0
    return v === 0 ? 0 : Math.max(1, Math.min(5, 5 + Math.ceil(Math.log(v / most) / Math.log(4))))
  }
  const about = (/** @type {string} */ code) => `${name(code)}: ${n(clicks.get(code) ?? 0)}`
  const kind = (/** @type {string} */ code) => `land land-${shade(code)} ${chosen.includes(code) ? 'land-chosen' : ''}`
  const picked = (/** @type {string} */ code) => (clicks.has(code) ? () => pick(code) : nothing)
  return html`<svg class="map" viewBox="0 0 ${width} ${height}" role="img" aria-label=${label}>
    ${shapes.map(({ code, d }) => svg`<path class=${code ? kind(code) : 'land land-0'} d=${d} @click=${code ? picked(code) : nothing}>${code ? svg`<title>${about(code)}</title>` : nothing}</path>`)}
    ${Object.entries(small).filter(([code]) => clicks.has(code)).map(([code, [lon, lat]]) => {
      const [x, y] = project(lon, lat)
      return svg`<circle class=${kind(code)} cx=${x.toFixed(1)} cy=${y.toFixed(1)} r="3.5" @click=${picked(code)}><title>${about(code)}</title></circle>`
    })}
  </svg>`
}
