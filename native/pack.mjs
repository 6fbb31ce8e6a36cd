// Writes the packages of a release as tarballs: node native/pack.mjs OUT
//   seresnet-VERSION.tgz              JavaScript, models, the addon's sources; no install script
//   seresnet-linux-x64[-cuda13]-….tgz the addon built here, with oneDNN and libgomp beside it ($ORIGIN) and their licences
// The platform packages become optional dependencies of the first only here: unpublished ones would break `npm ci`.
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const addon = join(root, "build", "Release", "seresnet.node");
/** Libraries that travel with the addon, and the Debian packages whose licences go with them. */
const bundled = { "libdnnl.so": "libdnnl", "libgomp.so": "libgomp1" };
const platforms = ["@seresnet/linux-x64", "@seresnet/linux-x64-cuda13"];

const out = process.argv[2] && resolve(process.argv[2]);
if (!out) {
  console.error("usage: node native/pack.mjs OUT");
  process.exit(2);
}
mkdirSync(out, { recursive: true });
const work = mkdtempSync(join(tmpdir(), "seresnet-pack-"));
try {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  console.log(packMain(manifest));
  if (existsSync(addon)) console.log(packPlatform(manifest));
  else console.error(`pack: no platform package, because there is no ${addon}; run: npm run build:native`);
} finally {
  rmSync(work, { recursive: true });
}

function run(command, args, cwd = root) {
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

/** Packs a folder and returns the tarball's path. */
function npmPack(folder, destination) {
  const [{ filename }] = JSON.parse(
    run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", destination], folder),
  );
  return join(destination, filename.replace(/^@/, "").replace("/", "-"));
}

function packMain(manifest) {
  run("tar", ["-xzf", npmPack(root, work), "-C", work]);
  const folder = join(work, "package");
  const { scripts: _, devDependencies: __, ...published } = manifest;
  published.optionalDependencies = Object.fromEntries(platforms.map((name) => [name, manifest.version]));
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
  return npmPack(folder, out);
}

function packPlatform({ version, license, engines }) {
  const holder = { exports: {} };
  process.dlopen(holder, addon);
  const { onednn, cuda } = holder.exports.versions();
  if (process.platform !== "linux" || process.arch !== "x64" || !onednn)
    throw new Error("pack: expected an addon for linux-x64 with oneDNN");
  const name = platforms[cuda ? 1 : 0];
  const folder = join(work, "platform");
  mkdirSync(folder);
  copyFileSync(addon, join(folder, "seresnet.node"));
  const files = ["seresnet.node"];
  for (const [, soname, path] of run("ldd", [addon]).matchAll(/^\s*(\S+) => (\/\S+)/gm)) {
    const stem = Object.keys(bundled).find((library) => soname.startsWith(library));
    if (!stem) continue;
    copyFileSync(realpathSync(path), join(folder, soname));
    files.push(soname, copyLicence(bundled[stem], soname, folder));
  }
  if (files.length < 5) throw new Error(`pack: expected libdnnl and libgomp among what ${basename(addon)} needs`);
  copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  const description = `The native addon of seresnet for glibc Linux on x86-64: oneDNN${cuda ? ", CUDA 13" : ""}.`;
  const manifest = {
    name,
    version,
    description,
    license,
    os: ["linux"],
    cpu: ["x64"],
    libc: ["glibc"],
    engines,
    files,
    main: "seresnet.node",
  };
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  return npmPack(folder, out);
}

/** Debian keeps each package's copyright file; its name ends in the library's version (libdnnl2, libdnnl3). */
function copyLicence(stem, soname, folder) {
  const major = soname.split(".so.")[1];
  const source = [`${stem}${major}`, stem]
    .map((name) => `/usr/share/doc/${name}/copyright`)
    .find((path) => existsSync(path));
  if (!source) throw new Error(`pack: expected the licence of ${soname} in /usr/share/doc, got none`);
  const name = `LICENSE.${stem}`;
  copyFileSync(source, join(folder, name));
  return name;
}
