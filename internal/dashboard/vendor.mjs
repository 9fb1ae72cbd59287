// Fetches the libraries of the page from npm by the versions in web/vendor/vendor.json, takes the files
// that stand there out of them, and writes the hashes of the files back into it. `make vendor` runs it.
// To take another version, change it in vendor.json, run it, and read what git says has changed.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folder = join(import.meta.dirname, 'web/vendor')
const list = join(folder, 'vendor.json')
const packages = JSON.parse(readFileSync(list, 'utf8'))
const work = mkdtempSync(join(tmpdir(), 'vendor-'))
try {
  for (const p of packages) {
    // npm checks the archive against the hash that the registry names.
    const [packed] = JSON.parse(execFileSync('npm', ['pack', '--json', `${p.name}@${p.version}`], { cwd: work, encoding: 'utf8' }))
    execFileSync('tar', ['xzf', packed.filename], { cwd: work })
    const said = JSON.parse(readFileSync(join(work, 'package/package.json'), 'utf8'))
    if (said.license !== p.licence) throw new Error(`${p.name} ${p.version} has the licence ${said.license}, not ${p.licence}`)
    p.source = `https://registry.npmjs.org/${p.name}/-/${packed.filename}`
    for (const f of p.files) {
      const to = join(folder, f.to)
      copyFileSync(join(work, 'package', f.from), to)
      f.sha256 = createHash('sha256').update(readFileSync(to)).digest('hex')
    }
    rmSync(join(work, 'package'), { recursive: true })
  }
} finally {
  rmSync(work, { recursive: true })
}
writeFileSync(list, JSON.stringify(packages, null, 2) + '\n')
