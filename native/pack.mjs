// Writes the packages of a release as tarballs: node native/pack.mjs OUT [--release]
//   seresnet-VERSION.tgz              JavaScript, models, the addon's sources; no install script
//   seresnet-linux-x64-….tgz          the addon for the CPU, with what it needs beside it ($ORIGIN) and the licences
//   seresnet-linux-x64-cuda13-….tgz   the same with CUDA, where the local build has it
// With --release the first of the two has a small oneDNN inside (minutes the first time, native/onednn); without, which is for
// trying things out, it has the system's beside it.
// The first platform package becomes an optional dependency of seresnet only here: an unpublished one would break `npm ci`.
// The other is installed by name, by those who have a GPU.
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
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const addon = join(root, "build", "Release", "seresnet.node");
/** Libraries that travel with the addon, and the Debian packages whose licences go with them. */
const bundled = { "libdnnl.so": "libdnnl", "libgomp.so": "libgomp1", "libOpenCL.so": "ocl-icd-libopencl1" };
const cpuPackage = "@seresnet/linux-x64";
const cudaPackage = `${cpuPackage}-cuda13`;

const { values, positionals } = parseArgs({ options: { release: { type: "boolean" } }, allowPositionals: true });
if (positionals.length !== 1) {
  console.error("usage: node native/pack.mjs OUT [--release]");
  process.exit(2);
}
const out = resolve(positionals[0]);
mkdirSync(out, { recursive: true });
const work = mkdtempSync(join(tmpdir(), "seresnet-pack-"));
try {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  console.log(packMain(manifest));
  if (existsSync(addon)) packPlatforms(manifest);
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
  published.optionalDependencies = { [cpuPackage]: manifest.version };
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
  return npmPack(folder, out);
}

/** The local build, and where that has CUDA one without beside it. */
function packPlatforms(manifest) {
  const { onednn, cuda } = versionsOf(addon);
  if (process.platform !== "linux" || process.arch !== "x64" || !onednn)
    throw new Error("pack: expected an addon for linux-x64 with oneDNN");
  const variant = values.release ? "release" : cuda ? "cpu" : undefined;
  const build = [join(root, "native", "build.mjs"), `--${variant}`];
  if (variant) execFileSync(process.execPath, build, { stdio: ["ignore", 2, "inherit"] });
  console.log(packPlatform(manifest, cpuPackage, variant ? join(root, "build", variant, "seresnet.node") : addon));
  if (cuda) console.log(packPlatform(manifest, cudaPackage, addon));
}

function versionsOf(file) {
  const holder = { exports: {} };
  process.dlopen(holder, file);
  return holder.exports.versions();
}

function packPlatform({ version, license, engines, repository }, name, file) {
  const cuda = name === cudaPackage;
  const folder = join(work, basename(name));
  mkdirSync(folder);
  copyFileSync(file, join(folder, "seresnet.node"));
  const files = ["seresnet.node"];
  for (const [, soname, path] of run("ldd", [file]).matchAll(/^\s*(\S+) => (\/\S+)/gm)) {
    const stem = Object.keys(bundled).find((library) => soname.startsWith(library));
    if (!stem) continue;
    copyFileSync(realpathSync(path), join(folder, soname));
    files.push(soname, copyLicence(bundled[stem], soname, folder));
  }
  if (!files.some((name) => name.startsWith("libdnnl"))) files.push(...copyOnednnLicences(folder));
  if (!files.includes("libgomp.so.1")) throw new Error(`pack: expected libgomp among what ${file} needs`);
  copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  const description = `The native addon of seresnet for glibc Linux on x86-64: oneDNN${cuda ? ", CUDA 13" : ""}.`;
  const manifest = {
    name,
    version,
    description,
    license,
    repository,
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

/** Of the oneDNN that is inside the addon. */
function copyOnednnLicences(folder) {
  const from = join(root, "build", "onednn");
  const names = { LICENSE: "LICENSE.libdnnl", "THIRD-PARTY-PROGRAMS": "LICENSE.libdnnl-third-party" };
  for (const [name, target] of Object.entries(names)) copyFileSync(join(from, name), join(folder, target));
  return Object.values(names);
}

/** Debian keeps each package's copyright file; its name ends in the library's version (libdnnl2, libdnnl3). */
function copyLicence(stem, soname, folder) {
  const major = soname.split(".so.")[1];
  const source = [`${stem}${major}`, stem]
    .map((name) => `/usr/share/doc/${name}/copyright`)
    .find((path) => existsSync(path));
  if (!source) throw new Error(`pack: expected the licence of ${soname} in /usr/share/doc, got none`);
  const name = `LICENSE.${soname.split(".so")[0]}`;
  copyFileSync(source, join(folder, name));
  return name;
}
