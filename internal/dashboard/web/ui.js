// Small pieces that all sections share. Those that return a template are called while rendering; the others
// act at once. They hold no state of a section.
//
//   html, svg, render, nothing             lit-html, from this one place
//   icon(name)                             an inline picture that takes the size and the colour of the text
//   field({id, label, control, hint, error, optional})   a label, the control that has the id, a hint, an error
//   chip(text, {href, remove, removeLabel})
//   empty({icon, title, text, action})     what stands where nothing is yet
//   skeleton(lines)                        what stands where something will be in a moment
//   trouble(err, again)                    an error of api.js in words, with a button to try again
//   copyButton(text, label)                an icon button that copies
//   menu(id, {label, icon, text, items})   a button that opens a list of {label, icon, href | run, danger}
//   sparkline(values, label)               a line without axes, for a glance
//   state(link)                            its state as a coloured word; nothing for a link that simply works
//   bare(url)                              an address without scheme and www, for reading
//   explain(err)                           the words for an error of api.js
//   copy(text)                             to the clipboard; a promise of a text works too; tells whether it did
//   toast(message, {kind, action, ms, gone})   a message at the edge; action: {label, run}; gone is called when it was
//                                          closed without the action; returns a function that closes it
//   dialog(content, {title, wide})         a modal: content(close) -> template; resolves with what close was given
//   confirm({title, text, yes, danger})    resolves with true or false
//   focus(within, selector)                focuses the first that fits
//   announce(text)                         says it to who does not see it
//   color(token)                           a token's colour in the present theme, for canvases: color('--series-1')
//   drafts.get(name), .set(name, value), .drop(name)     what was typed, until the tab is closed

import { html, svg, render, nothing } from './vendor/lit-html.js'
import { Away, Problem } from './api.js'
import { t } from './texts.js'

export { html, svg, render, nothing }

/** @typedef {import('./vendor/lit-html.js').TemplateResult | typeof nothing | string | null | undefined} Piece */

// Each on a field of 24 by 24, drawn with a line of the colour of the text.
const icons = {
  home: 'M4 11.5 12 5l8 6.5M6 10v9h12v-9M10 19v-5h4v5',
  links: 'M10.5 13.5a3.5 3.5 0 0 0 5 0l3-3a3.5 3.5 0 0 0-5-5L12 7M13.5 10.5a3.5 3.5 0 0 0-5 0l-3 3a3.5 3.5 0 0 0 5 5L12 17',
  chart: 'M5 5v14h14M9 15v-4M13 15V8M17 15v-6',
  service: 'M5 6h14v5H5zM5 13h14v5H5zM8 8.5h.01M8 15.5h.01',
  settings: 'M5 8h8M17 8h2M5 16h2M11 16h8M15 6v4M9 14v4',
  plus: 'M12 6v12M6 12h12',
  copy: 'M9 9h10v10H9zM15 9V5H5v10h4',
  check: 'm6 12.5 4 4 8-9',
  qr: 'M5 5h5v5H5zM14 5h5v5h-5zM5 14h5v5H5zM14 14h2v2M19 14v5M14 19h2',
  open: 'M13 5h6v6M19 5l-9 9M17 14v5H5V7h5',
  edit: 'm5 19 1-4L16 5l3 3L9 18z',
  trash: 'M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12',
  search: 'M11 17a6 6 0 1 0 0-12 6 6 0 0 0 0 12ZM15.5 15.5 19 19',
  close: 'm7 7 10 10M17 7 7 17',
  more: 'M6 12h.01M12 12h.01M18 12h.01',
  down: 'm7 10 5 5 5-5',
  right: 'm10 7 5 5-5 5',
  warn: 'M12 5 3.5 19h17zM12 11v3M12 16.5h.01',
  info: 'M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16ZM12 11v5M12 8h.01',
  clock: 'M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16ZM12 8v4l3 2',
  tag: 'M5 5h7l7 7-7 7-7-7zM9 9h.01',
  pause: 'M9 6v12M15 6v12',
  play: 'm8 6 10 6-10 6z',
  upload: 'M12 15V5M8 9l4-4 4 4M5 15v4h14v-4',
  download: 'M12 5v10M8 11l4 4 4-4M5 15v4h14v-4',
  key: 'M9 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM13 12h7v3M17 12v2',
  out: 'M10 5H5v14h5M15 8l4 4-4 4M9 12h10',
  help: 'M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16ZM9.8 9.7a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.6M12 16h.01',
  filter: 'M5 7h14M8 12h8M11 17h2',
  flake: 'M12 4v16M5 8l14 8M5 16l14-8',
}

/** @param {keyof typeof icons} name */
export const icon = (name) =>
  svg`<svg class="icon icon-${name}" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${icons[name]}></path></svg>`

/** @param {{id: string, label: string, control: Piece, hint?: Piece, error?: string | null, optional?: boolean}} f
 * The control should have aria-describedby="ID-about", and aria-invalid while there is an error. */
export const field = ({ id, label, control, hint, error, optional }) => html`
  <div class="field ${error ? 'field-wrong' : ''}">
    <label for=${id}>${label}${optional ? html` <span class="muted">${t('ui.optional')}</span>` : nothing}</label>
    ${control}
    <p class="field-about" id="${id}-about" aria-live="polite">${error ? html`<span class="error">${error}</span>` : hint ?? nothing}</p>
  </div>`

/** @param {string} text @param {{href?: string, remove?: () => void, removeLabel?: string}} [options] */
export const chip = (text, { href, remove, removeLabel } = {}) => html`
  <span class="chip">${href ? html`<a href=${href}>${text}</a>` : html`<span>${text}</span>`}${remove
    ? html`<button type="button" class="chip-remove" aria-label=${removeLabel ?? t('ui.remove', { what: text })} @click=${remove}>${icon('close')}</button>`
    : nothing}</span>`

/** @param {{icon?: keyof typeof icons, title: string, text?: Piece, action?: Piece}} e */
export const empty = ({ icon: name = 'flake', title, text, action }) => html`
  <div class="empty">
    <div class="empty-icon">${icon(name)}</div>
    <h2>${title}</h2>
    ${text ? html`<p>${text}</p>` : nothing}
    ${action ?? nothing}
  </div>`

/** @param {number} [lines] */
export const skeleton = (lines = 3) => html`<div class="skeleton" aria-hidden="true">${Array.from({ length: lines }, () => html`<div></div>`)}</div>`

/** @param {unknown} err */
export function explain(err) {
  if (err instanceof Away) return t('error.away')
  if (!(err instanceof Problem)) return t('error.unknown', { what: String(/** @type {any} */ (err)?.message ?? err) })
  if (err.code === 'rate_limited') return t('error.rate_limited', { n: err.retryAfter || 1 })
  if (err.code === 'unauthorized' || err.code === 'forbidden' || err.code === 'not_found' || err.code === 'gone' || err.code === 'code_taken' || err.code === 'clicks_off') return t(`error.${err.code}`)
  return err.detail
}

/** @param {unknown} err @param {() => void} [again] */
export const trouble = (err, again) => html`
  <div class="trouble" role="alert">
    ${icon('warn')}<p>${explain(err)}</p>
    ${again ? html`<button type="button" class="button" @click=${again}>${t('ui.again')}</button>` : nothing}
  </div>`

/** @param {string} text @param {string} [label] */
export const copyButton = (text, label = t('ui.copy')) => html`
  <button type="button" class="icon-button" title=${label} aria-label=${label} @click=${(/** @type {Event} */ e) => copied(e, text)}>${icon('copy')}</button>`

/** @param {Event} e @param {string} text */
async function copied(e, text) {
  const button = /** @type {HTMLElement} */ (e.currentTarget)
  const done = await copy(text)
  toast(done ? t('ui.copied') : t('ui.not_copied'), { kind: done ? 'good' : 'bad' })
  button.classList.toggle('done', done)
  setTimeout(() => button.classList.remove('done'), 1500)
}

/** @typedef {{label: string, icon?: keyof typeof icons, href?: string, run?: () => void, danger?: boolean}} Item
 * @typedef {(false | Item)[]} Items */

/** @param {string} id unique in the page
 * @param {{label: string, icon?: keyof typeof icons, text?: Piece, items: Items | (() => Items)}} m
 * with `text` the button shows that, otherwise only the icon; a function is asked for the items when it is opened */
export const menu = (id, { label, icon: name = 'more', text, items }) => html`
  <button type="button" class=${text ? 'button' : 'icon-button'} id="${id}-button" popovertarget=${id} aria-label=${text ? nothing : label} title=${text ? nothing : label}>
    ${text ?? icon(name)}
  </button>
  <div class="menu" id=${id} popover @beforetoggle=${(/** @type {ToggleEvent} */ e) => fill(e, items)} @toggle=${place} @click=${hide} @keydown=${roam}></div>`

/** @param {ToggleEvent} e @param {Items | (() => Items)} items */
function fill(e, items) {
  if (e.newState !== 'open') return
  render((typeof items === 'function' ? items() : items).map((i) => i && (i.href
    ? html`<a class="menu-item" href=${i.href}>${i.icon ? icon(i.icon) : nothing}${i.label}</a>`
    : html`<button type="button" class="menu-item ${i.danger ? 'danger' : ''}" @click=${i.run}>${i.icon ? icon(i.icon) : nothing}${i.label}</button>`)),
  /** @type {HTMLElement} */ (e.currentTarget))
}

/** @param {Event} e */
const hide = (e) => /** @type {HTMLElement} */ (e.currentTarget).hidePopover()

/** Puts an opened menu beside its button, within the window. @param {ToggleEvent} e */
function place(e) {
  if (e.newState !== 'open') return
  const m = /** @type {HTMLElement} */ (e.currentTarget)
  const b = /** @type {HTMLElement} */ (document.getElementById(`${m.id}-button`)).getBoundingClientRect()
  const below = b.bottom + 4 + m.offsetHeight <= innerHeight || b.top < m.offsetHeight
  m.style.top = `${below ? b.bottom + 4 : b.top - 4 - m.offsetHeight}px`
  m.style.left = `${Math.max(8, Math.min(b.right - m.offsetWidth, innerWidth - m.offsetWidth - 8))}px`
  focus(m, '.menu-item')
}

/** @param {KeyboardEvent} e */
function roam(e) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[e.key]
  if (!step) return
  e.preventDefault()
  const items = /** @type {HTMLElement[]} */ ([.../** @type {HTMLElement} */ (e.currentTarget).querySelectorAll('.menu-item')])
  const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement))
  items[(at + step + items.length) % items.length].focus()
}

/** @param {number[]} values @param {string} label what it shows, for who does not see it */
export function sparkline(values, label) {
  const width = 96, height = 28
  const top = Math.max(1, ...values)
  const at = (/** @type {number} */ v, /** @type {number} */ i) =>
    `${((i / Math.max(1, values.length - 1)) * width).toFixed(1)} ${(height - 2 - (v / top) * (height - 4)).toFixed(1)}`
  const line = values.map(at).join('L')
  return html`<svg class="sparkline" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label=${label}>
    ${values.length > 1 ? svg`<path class="sparkline-area" d="M0 ${height}L${line}L${width} ${height}Z"></path><path class="sparkline-line" d="M${line}"></path>` : nothing}
  </svg>`
}

/** @typedef {{code: string, short_url: string, url: string, created_at?: string, owner?: string, expires_at?: string, max_visits?: number,
 *   visits_left?: number, status?: number, forward_query?: boolean, title?: string, tags?: string[], disabled?: boolean, deleted?: boolean,
 *   clicks?: number}} Link  as the API has it */

/** @param {Link} link */
export function state(link) {
  const say = (/** @type {string} */ name, /** @type {string} */ kind) => html`<span class="state state-${kind}">${t(`state.${name}`)}</span>`
  if (link.deleted) return say('deleted', 'bad')
  if (link.disabled) return say('disabled', 'warn')
  if (link.expires_at && new Date(link.expires_at) <= new Date()) return say('expired', 'bad')
  if (link.visits_left === 0) return say('used', 'bad')
  return nothing
}

/** @param {string} url */
export const bare = (url) => url.replace(/^https?:\/\/(www\.)?/, '').replace(/\/$/, '')

/** Saves a text as a file. @param {string} text @param {string} name @param {string} type */
export function save(text, name, type) {
  const a = document.createElement('a')
  a.href = URL.createObjectURL(new Blob([text], { type }))
  a.download = name
  a.click()
  setTimeout(() => URL.revokeObjectURL(a.href), 60_000)
}

/** @param {string | Promise<string>} text @returns {Promise<boolean>} */
export async function copy(text) {
  try {
    if (typeof text === 'string') {
      await navigator.clipboard.writeText(text)
    } else {
      // Browsers take a promise only while the key press or the click is being handled, so that there may
      // be a request between the two.
      await navigator.clipboard.write([new ClipboardItem({ 'text/plain': text.then((s) => new Blob([s], { type: 'text/plain' })) })])
    }
    return true
  } catch {
    return copyByHand(await text)
  }
}

/** Where there is no clipboard: pages that came over plain HTTP have none. @param {string} text */
function copyByHand(text) {
  const before = /** @type {HTMLElement | null} */ (document.activeElement)
  const area = document.createElement('textarea')
  area.value = text
  area.className = 'sr-only'
  ;(document.querySelector('dialog[open]') ?? document.body).append(area)
  area.select()
  const done = document.execCommand('copy')
  area.remove()
  before?.focus()
  return done
}

/** @param {string} className */
function region(className) {
  let box = /** @type {HTMLElement | null} */ (document.querySelector(`.${className}`))
  if (!box) {
    box = document.createElement('div')
    box.className = className
    box.setAttribute('role', 'status')
    document.body.append(box)
  }
  return box
}

/** @param {string} message @param {{kind?: 'good' | 'bad' | 'plain', action?: {label: string, run: () => void}, ms?: number, gone?: () => void}} [options] */
export function toast(message, { kind = 'plain', action, ms = kind === 'bad' ? 8000 : 4000, gone } = {}) {
  const box = region('toasts')
  const one = document.createElement('div')
  one.className = `toast toast-${kind}`
  const close = (acted = false) => {
    clearTimeout(timer)
    if (!one.isConnected) return
    one.remove()
    if (!acted) gone?.()
  }
  // Pressing Undo takes as long as somebody needs to read: the time stands still under the pointer and the focus.
  let timer = setTimeout(() => close(), ms)
  let ends = Date.now() + ms
  const stand = () => {
    if (timer === 0) return
    clearTimeout(timer)
    timer = 0
    ms = ends - Date.now()
  }
  const goOn = () => {
    if (timer !== 0 || one.matches(':hover') || one.contains(document.activeElement)) return
    ms = Math.max(ms, 2000)
    ends = Date.now() + ms
    timer = setTimeout(() => close(), ms)
  }
  one.addEventListener('pointerenter', stand)
  one.addEventListener('focusin', stand)
  one.addEventListener('pointerleave', goOn)
  one.addEventListener('focusout', () => setTimeout(goOn))
  render(html`
    ${kind === 'plain' ? nothing : icon(kind === 'good' ? 'check' : 'warn')}<span>${message}</span>
    ${action ? html`<button type="button" class="toast-action" @click=${() => { close(true); action.run() }}>${action.label}</button>` : nothing}
    <button type="button" class="icon-button" aria-label=${t('ui.close')} @click=${() => close()}>${icon('close')}</button>`, one)
  box.append(one)
  return () => close()
}

/** @template T @param {(close: (value?: T) => void) => Piece} content
 * @param {{title: string, wide?: boolean, on?: (again: () => void) => void}} options `on` is handed what renders the content again
 * @returns {Promise<T | undefined>} undefined if it was closed without an answer */
export function dialog(content, { title, wide = false, on }) {
  const box = document.createElement('dialog')
  const before = /** @type {HTMLElement | null} */ (document.activeElement)
  /** @type {T | undefined} */
  let value
  /** @param {T} [v] */
  const close = (v) => {
    value = v
    box.close()
  }
  const draw = () => render(html`
    <header class="dialog-head"><h2 id="dialog-title">${title}</h2>
      <button type="button" class="icon-button" aria-label=${t('ui.close')} @click=${() => close()}>${icon('close')}</button></header>
    ${content(close)}`, box)
  box.className = wide ? 'dialog dialog-wide' : 'dialog'
  box.setAttribute('aria-labelledby', 'dialog-title')
  draw()
  on?.(draw)
  document.body.append(box)
  box.showModal()
  focus(box, '[autofocus]')
  return new Promise((done) => box.addEventListener('close', () => {
    box.remove()
    before?.focus()
    done(value)
  }))
}

/** @param {{title: string, text?: Piece, yes: string, danger?: boolean}} question @returns {Promise<boolean>} */
export async function confirm({ title, text, yes, danger }) {
  const answer = await dialog((/** @type {(v?: boolean) => void} */ close) => html`
    <form class="stack" @submit=${(/** @type {Event} */ e) => { e.preventDefault(); close(true) }}>
      ${text ? html`<p>${text}</p>` : nothing}
      <div class="actions">
        <button type="button" class="button" @click=${() => close(false)}>${t('ui.cancel')}</button>
        <button class="button ${danger ? 'button-danger' : 'button-primary'}" autofocus>${yes}</button>
      </div>
    </form>`, { title })
  return answer === true
}

/** @param {Element} within @param {string} selector */
export function focus(within, selector) {
  const e = /** @type {HTMLElement | null} */ (within.querySelector(selector))
  e?.focus()
}

/** @param {string} text */
export function announce(text) {
  const box = region('announcer')
  box.classList.add('sr-only')
  // The same words again are no change, and nobody would hear them.
  box.textContent = box.textContent === text ? `${text}\u00a0` : text
}

/** @param {string} token @returns {string} as rgb(…) */
export function color(token) {
  const probe = document.createElement('span')
  probe.style.color = `var(${token})`
  document.body.append(probe)
  const c = getComputedStyle(probe).color
  probe.remove()
  return c
}

export const drafts = {
  /** @param {string} name @returns {any} undefined if there is none */
  get(name) {
    try {
      return JSON.parse(sessionStorage.getItem(`draft:${name}`) ?? 'null') ?? undefined
    } catch {
      return undefined
    }
  },
  /** @param {string} name @param {unknown} value */
  set(name, value) {
    try {
      sessionStorage.setItem(`draft:${name}`, JSON.stringify(value))
    } catch {
      // The browser keeps nothing for this page. The draft is on the screen still.
    }
  },
  /** @param {string} name */
  drop: (name) => sessionStorage.removeItem(`draft:${name}`),
}
