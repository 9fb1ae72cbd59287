// What the keys do, in a dialog over whatever is open. app.js and the sections act on them.

import { t } from '../texts.js'
import { dialog, html } from '../ui.js'

/** Groups of keys, each with the name of what it does. The scope is what the key of the session must have for it.
 * @type {{name: string, keys: {keys: string, does: string, scope?: string}[]}[]} */
const groups = [
  {
    name: 'anywhere', keys: [
      { keys: 'n', does: 'new', scope: 'create' },
      { keys: '/', does: 'search', scope: 'read' },
      { keys: 'g h', does: 'home' },
      { keys: 'g l', does: 'links', scope: 'read' },
      { keys: 'g o', does: 'overview', scope: 'read' },
      { keys: 'g s', does: 'service', scope: 'admin' },
      { keys: 'g ,', does: 'settings' },
      { keys: '?', does: 'help' },
      { keys: 'Esc', does: 'close' },
    ],
  },
  {
    name: 'list', keys: [
      { keys: 'j', does: 'next', scope: 'read' },
      { keys: 'k', does: 'previous', scope: 'read' },
      { keys: 'Enter', does: 'open', scope: 'read' },
      { keys: 'c', does: 'copy', scope: 'read' },
      { keys: 'q', does: 'qr', scope: 'read' },
      { keys: 'e', does: 'edit', scope: 'manage' },
      { keys: 'x', does: 'select', scope: 'manage' },
    ],
  },
]

/** @param {import('../app.js').App} app */
export default function help(app) {
  const may = groups.map((g) => ({ ...g, keys: g.keys.filter((k) => !k.scope || app.can(k.scope)) })).filter((g) => g.keys.length > 0)
  return dialog(() => html`
    <div class="help">
      ${may.map((g) => html`
        <section class="help-group" aria-labelledby="help-${g.name}">
          <h3 id="help-${g.name}">${t(`help.${g.name}`)}</h3>
          <dl>${g.keys.map((k) => html`
            <div class="help-row">
              <dt>${k.keys.split(' ').map((key, i) => html`${i > 0 ? html`<span class="muted">${t('help.then')}</span>` : ''}<kbd>${key}</kbd>`)}</dt>
              <dd>${t(`help.${k.does}`)}</dd>
            </div>`)}
          </dl>
        </section>`)}
    </div>
    <p class="muted">${t('help.fields')}</p>`, { title: t('help.title'), wide: true })
}
