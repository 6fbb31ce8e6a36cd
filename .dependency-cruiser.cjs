// The layers of lib/, from the ground up: a file may import what is in its own layer and below. Checked by `npm run check`.
const layers = {
  ground: "^lib/(?!tensor|index)[^/]+[.]ts$", // errors, dtypes, shapes, files, queues: no tensors
  graph: "^lib/graph/", // recorded operations and the passes over them, pure
  plan: "^lib/plan/", // a graph as plain data for an executor
  devices: "^lib/devices/", // what runs plans
  lazy: "^lib/lazy/", // variables, and when what is recorded is computed
  tensor: "^lib/tensor[.]ts$",
  ops: "^lib/ops/",
  image: "^lib/image/",
  nn: "^lib/nn/",
  models: "^models/",
  optim: "^lib/optim/",
  compile: "^lib/compile/",
  io: "^lib/io/",
  data: "^lib/data/",
  classifier: "^lib/classifier/",
  train: "^lib/train/",
  cli: "^lib/cli/",
};

const names = Object.keys(layers);

/** @type {import("dependency-cruiser").IConfiguration} */
module.exports = {
  forbidden: [
    { name: "no-circle", severity: "error", from: {}, to: { circular: true } },
    {
      name: "no-orphan",
      severity: "error",
      from: { orphan: true, path: "^(lib|models)/", pathNot: "/index[.]m?ts$" },
      to: {},
    },
    ...names.slice(0, -1).map((name, i) => ({
      name: `${name}-imports-nothing-above`,
      comment: `${name} lies below ${names.slice(i + 1).join(", ")}`,
      severity: "error",
      from: { path: layers[name] },
      to: { path: [...names.slice(i + 1).map((above) => layers[above]), "^lib/index[.]"] },
    })),
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true, // types, too
  },
};
