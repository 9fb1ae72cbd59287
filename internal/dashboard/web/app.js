// Starts the page: settings, texts, who is signed in; then the frame with the navigation, and in it the
// section that the address names. A section is a module that is loaded when it is first opened:
//
//   export default async function open(app, root, route) -> {update(route), close(), back(), keys}
//
//   root      an empty element, the section's own (render into it with lit-html)
//   route     {name, params, query}: params.code, query as URLSearchParams
//   update    called instead of close and open when only params or query changed; without it, the section is opened anew
//   close     ends what still runs; app.signal of the section has fired by then
//   back      called when the service is back after it was away, or after somebody signed in again
//   keys      {j: () => …}: keys of the section, beside those of the page; a function that returns false passes the key on
//   (all of them may be left out)
//
// app is one object for all: {api, session, t, format, settings, go, replace, title, toast, dialog, confirm,
// announce, drafts, can, signal, signOut, leaving}
//   session   {id, name, scopes, created_at, expires_at}
//   can(s)    whether the key has the scope s: create, read, manage, admin
//   go(path)  opens '/links?tag=mail' (without /dashboard); replace(path) only writes it into the address
//   title(s)  the title of the window
//   signal    an AbortSignal that fires when the present section is left
//   leaving   a Set of functions that are awaited before one signs out
//   settings  what this browser remembers: theme, language, timeZone, defaults; change with settings.set(name, value)
// css/NAME.css is loaded with the section where the table below says so; css/app.css has tokens and shared pieces.

import * as api from './api.js'
import { format, load, t } from './texts.js'
import { announce, confirm, dialog, drafts, html, icon, menu, nothing, render, skeleton, toast, trouble, empty } from './ui.js'

/** @typedef {{name: string, params: Record<string, string>, query: URLSearchParams}} Route
 * @typedef {{update?: (route: Route) => void, close?: () => void, back?: () => void, keys?: Record<string, () => unknown>}} Section
 * @typedef {{id: string, name: string, scopes: string[], created_at: string, expires_at: string}} Session */

const base = '/dashboard'

/** Name, path, the scope it takes, whether it has a style sheet of its own, the module if another. The first that fits counts.
 * @type {{name: string, path: string, scope?: string, css?: string, module?: string}[]} */
const table = [
  { name: 'home', path: '/' },
  { name: 'new', path: '/new', scope: 'create', module: 'edit', css: 'edit' },
  { name: 'links', path: '/links', scope: 'read', css: 'links' },
  { name: 'edit', path: '/links/:code/edit', scope: 'manage', css: 'edit' },
  { name: 'link', path: '/links/:code', scope: 'read', css: 'clicks' },
  { name: 'overview', path: '/overview', scope: 'read', css: 'clicks' },
  { name: 'service', path: '/service', scope: 'admin', css: 'service' },
  { name: 'settings', path: '/settings', css: 'settings' },
]

/** @type {{name: string, icon: 'home' | 'links' | 'chart' | 'service' | 'settings', keys: string, also?: string[]}[]} */
const navigation = [
  { name: 'home', icon: 'home', keys: 'g h' },
  { name: 'links', icon: 'links', keys: 'g l', also: ['link', 'edit'] },
  { name: 'overview', icon: 'chart', keys: 'g o' },
  { name: 'service', icon: 'service', keys: 'g s' },
  { name: 'settings', icon: 'settings', keys: 'g ,' },
]

const settings = {
  theme: 'system', // or light, dark
  language: '', // the browser's
  timeZone: '', // the browser's
  keys: true, // whether single keys do something; not if one speaks to the computer
  /** What a new link has unless one says otherwise, in the fields of the API. @type {Record<string, any>} */
  defaults: {},
  /** @param {'theme' | 'language' | 'timeZone' | 'keys' | 'defaults'} name @param {any} value */
  async set(name, value) {
    Object.assign(settings, { [name]: value })
    try {
      localStorage.setItem('settings', JSON.stringify(settings))
    } catch {
      // The browser keeps nothing for this page. The setting holds until it is closed.
    }
    wear()
    if (name === 'language' || name === 'timeZone') {
      await load(settings.language, settings.timeZone)
      await show(here())
    }
  },
}
try {
  Object.assign(settings, JSON.parse(localStorage.getItem('settings') ?? '{}'))
} catch {
  // What was kept cannot be read. It is written anew with the next change.
}
wear()

function wear() {
  if (settings.theme === 'system') document.documentElement.removeAttribute('data-theme')
  else document.documentElement.dataset.theme = settings.theme
}

export const app = {
  api, t, format, settings, toast, dialog, confirm, announce, drafts,
  session: /** @type {Session} */ (/** @type {unknown} */ (null)),
  signal: new AbortController().signal,
  /** @param {string} scope */
  can: (scope) => app.session.scopes.includes(scope),
  /** @param {string} path */
  go(path) {
    history.replaceState({ ...history.state, y: scrollY }, '')
    history.pushState({}, '', base + path)
    return show(here())
  },
  /** @param {string} path */
  replace(path) {
    history.replaceState(history.state, '', base + path)
  },
  /** @param {string} text */
  title(text) {
    document.title = `${text} · Snowlink`
  },
  signOut,
  /** What still has to be done before one signs out. @type {Set<() => unknown>} */
  leaving: new Set(),
}
/** @typedef {typeof app} App */

const frame = document.createElement('div')
frame.className = 'frame'
/** @type {HTMLElement} the present section's root */
let root = document.createElement('div')
/** @type {Section} */
let section = {}
/** @type {Route | null} */
let route = null
let leave = new AbortController()
let away = false

/** @returns {Route} */
function here() {
  const path = location.pathname.slice(base.length).replace(/\/+$/, '') || '/'
  const query = new URLSearchParams(location.search)
  for (const s of table) {
    const match = new RegExp(`^${s.path.replace(/:\w+/g, '([^/]+)')}$`).exec(path)
    if (!match) continue
    try {
      return { name: s.name, params: match[1] ? { code: decodeURIComponent(match[1]) } : {}, query }
    } catch {
      break // no code has such an address
    }
  }
  return { name: 'nowhere', params: {}, query }
}

/** @param {Route} next @param {number} [y] how far it was scrolled when it was left */
async function show(next, y = 0) {
  const same = route?.name === next.name && section.update
  const first = route === null
  route = next
  drawFrame()
  if (same) {
    section.update?.(next)
    return
  }
  leave.abort()
  section.close?.()
  section = {}
  leave = new AbortController()
  app.signal = leave.signal
  const mine = leave
  root = document.createElement('div')
  root.className = `section section-${next.name}`
  render(skeleton(6), root)
  drawFrame()
  const s = table.find((s) => s.name === next.name)
  if (!s) {
    app.title(t('nowhere.title'))
    render(empty({ icon: 'search', title: t('nowhere.title'), text: t('nowhere.text'), action: html`<a class="button" href="/dashboard/">${t('nav.home')}</a>` }), root)
    return
  }
  app.title(t(`nav.${s.name}`))
  if (s.scope && !app.can(s.scope)) {
    render(empty({ icon: 'key', title: t('scope.title'), text: t('scope.text', { scope: s.scope }) }), root)
    return
  }
  let module
  try {
    module = await fetchSection(s)
  } catch (err) {
    if (mine.signal.aborted) return
    // A browser may remember that a module did not load, until the page is loaded again.
    console.error(err)
    const reload = () => location.reload()
    section = { back: reload }
    render(trouble(new api.Away(`${s.name} did not load`, 0), reload), root)
    api.doubt()
    return
  }
  if (mine.signal.aborted) return
  try {
    const fresh = document.createElement('div')
    fresh.className = root.className
    const opened = (await module.default(app, fresh, next)) ?? {}
    if (mine.signal.aborted) {
      opened.close?.()
      return
    }
    section = opened
    root = fresh
    drawFrame()
    scrollTo(0, y)
    // Whoever goes to another section hears its heading. A page that was just loaded begins at its top.
    const start = /** @type {HTMLElement | null} */ (root.querySelector('[autofocus]') ?? (first ? null : root.querySelector('h1')))
    if (start && !root.contains(document.activeElement)) {
      if (start.matches('h1')) start.tabIndex = -1
      start.focus({ preventScroll: true })
    }
  } catch (err) {
    if (mine.signal.aborted) return
    const again = () => show(next)
    section = { back: again }
    render(trouble(err, again), root)
  }
}

/** @param {(typeof table)[0]} s */
async function fetchSection(s) {
  const [module] = await Promise.all([import(`./sections/${s.module ?? s.name}.js`), s.css && style(s.css)])
  return module
}

/** Loads css/NAME.css once. @param {string} name */
function style(name) {
  const href = `${base}/css/${name}.css`
  if (document.querySelector(`link[href="${href}"]`)) return
  const link = document.createElement('link')
  link.rel = 'stylesheet'
  link.href = href
  const loaded = new Promise((done, fail) => {
    link.onload = done
    link.onerror = () => {
      link.remove()
      fail(new Error(`${href} did not load`))
    }
  })
  document.head.append(link)
  return loaded
}

function drawFrame() {
  const seen = navigation.filter((n) => {
    const scope = table.find((s) => s.name === n.name)?.scope
    return !scope || app.can(scope)
  })
  const at = (/** @type {(typeof navigation)[0]} */ n) => route && (n.name === route.name || n.also?.includes(route.name))
  const path = (/** @type {string} */ name) => base + table.find((s) => s.name === name)?.path
  render(html`
    <a class="skip" href="#main" @click=${toMain}>${t('nav.skip')}</a>
    <aside class="side">
      <a class="brand" href="/dashboard/">${icon('flake')}<span>Snowlink</span></a>
      ${app.can('create') ? html`<a class="button button-primary side-new" href="/dashboard/new">${icon('plus')}<span>${t('nav.new')}</span></a>` : nothing}
      <nav class="nav" aria-label=${t('nav.label')}>
        ${seen.map((n) => html`<a class="nav-${n.name}" href=${path(n.name)} aria-current=${at(n) ? 'page' : nothing} title="${t(`nav.${n.name}`)} (${n.keys})">${icon(n.icon)}<span>${t(`nav.${n.name}`)}</span></a>`)}
      </nav>
      <div class="side-foot">
        ${menu('who', {
          label: t('nav.account'),
          text: html`${icon('key')}<span class="ellipsis">${app.session.name}</span>${icon('down')}`,
          items: () => [
            { label: t('nav.settings'), icon: 'settings', href: path('settings') },
            { label: t('nav.help'), icon: 'help', run: help },
            { label: t('nav.out'), icon: 'out', run: signOut },
          ],
        })}
      </div>
    </aside>
    <div class="page">
      <div class="banner-place" role="status">${away ? html`<div class="banner">${icon('warn')}<span>${t('away.banner')}</span></div>` : nothing}</div>
      <main id="main" tabindex="-1">${root}</main>
    </div>`, frame)
}

/** @param {Event} e */
function toMain(e) {
  e.preventDefault()
  document.getElementById('main')?.focus()
}

async function help() {
  const module = await import('./sections/help.js')
  module.default(app)
}

async function signOut() {
  try {
    await Promise.all([...app.leaving].map((finish) => finish()))
    await api.call('DELETE', '/dashboard/session')
  } catch (err) {
    // Whoever has no session any more is signed out.
    if (!(err instanceof api.Problem && err.status === 401)) {
      toast(t('nav.out_failed'), { kind: 'bad' })
      return
    }
  }
  sessionStorage.clear()
  location.assign(`${base}/`)
}

// Links of the page change the section, and not the document.
document.addEventListener('click', (e) => {
  const a = /** @type {Element} */ (e.target).closest('a')
  if (!a || e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return
  if (a.target || a.hasAttribute('download') || a.origin !== location.origin || !a.pathname.startsWith(`${base}/`) || a.hash) return
  e.preventDefault()
  app.go(a.pathname.slice(base.length) + a.search)
})
addEventListener('popstate', (e) => app.session && show(here(), e.state?.y ?? 0))
history.scrollRestoration = 'manual'

/** @type {Record<string, () => unknown>} */
const pageKeys = {
  n: () => app.can('create') && app.go('/new'),
  '/': () => app.can('read') && app.go('/links?focus=search'),
  '?': help,
  'g h': () => app.go('/'),
  'g l': () => app.go('/links'),
  'g o': () => app.go('/overview'),
  'g s': () => app.go('/service'),
  'g ,': () => app.go('/settings'),
}
let prefix = ''
let prefixUntil = 0
document.addEventListener('keydown', (e) => {
  const on = /** @type {HTMLElement} */ (e.target)
  if (!app.session || !settings.keys || e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || e.isComposing) return
  if (on.closest('input:not([type=checkbox]), textarea, select, [contenteditable], dialog, [popover]')) return
  const key = prefix && Date.now() < prefixUntil ? `${prefix} ${e.key}` : e.key
  prefix = ''
  if (e.key === 'g' && key === 'g') {
    prefix = 'g'
    prefixUntil = Date.now() + 1500
    return
  }
  const act = (section.keys && Object.hasOwn(section.keys, key) && section.keys[key]) || (Object.hasOwn(pageKeys, key) && pageKeys[key])
  if (act && act() !== false) e.preventDefault()
})

let asked = false
api.watch(async (what) => {
  if (what === 'signedout') {
    if (!app.session || asked) return
    asked = true
    try {
      const { again } = await import('./sections/signin.js')
      await again(app)
    } finally {
      asked = false
    }
    section.back?.()
    return
  }
  away = what === 'away'
  if (!app.session) return
  drawFrame()
  announce(t(away ? 'away.banner' : 'away.back'))
  if (!away) section.back?.()
})

/** Who is signed in. After a token that did not work, its error is what counts. @param {unknown} [failed] */
async function present(failed) {
  try {
    return await api.call('GET', '/dashboard/session')
  } catch (err) {
    throw failed ?? err
  }
}

async function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token')
  // The token works once: it shall not stand in the address or in the history.
  if (token) history.replaceState(history.state, '', location.pathname + location.search)
  // Texts and the section come while the service says who is signed in.
  const signedIn = token ? api.call('POST', '/dashboard/session', { body: { token } }).catch(present) : present()
  const s = table.find((s) => s.name === here().name)
  if (s) fetchSection(s).catch(() => {})
  const [session] = await Promise.allSettled([signedIn, load(settings.language, settings.timeZone)])
  if (session.status === 'fulfilled') {
    app.session = session.value.data
  } else {
    const err = session.reason
    const nobody = err instanceof api.Problem && err.status === 401 && !token
    await (await import('./sections/signin.js')).default(app, document.body, nobody ? null : err)
  }
  document.body.replaceChildren(frame)
  await show(here())
}
start()
