import { defineConfig } from "vitest/config";

const report = process.env.SERESNET_TEST_REPORT;

// These start programs, compilers or whole trainings.
const slow = [
  "addon",
  "build",
  "classify_cli",
  "cli",
  "cli_export_bench",
  "cpu_winograd",
  "cuda_bench",
  "cuda_kernels",
  "cudnn_plans",
  "degradation",
  "docs",
  "environment",
  "examples",
  "exit",
  "fashion",
  "gradients",
  "hub",
  "large_input",
  "native_memory",
  "native_workers",
  "not_finite",
  "onednn3",
  "onnx_zoo",
  "pack",
  "python",
  "release",
  "slow_device",
  "train_cli",
  "verify",
  "zoo",
].map((name) => `test/${name}.test.ts`);

// Programs the tests start must print what they print for users, whatever colours this run is shown in.
delete process.env.FORCE_COLOR;

export default defineConfig({
  test: {
    testTimeout: 120_000,
    hookTimeout: 120_000,
    pool: "forks",
    // npm run test:fast: a minute, for while one works and for other releases of Node.js
    projects: [
      { extends: true, test: { name: "fast", include: ["test/**/*.test.ts"], exclude: slow } },
      { extends: true, test: { name: "slow", include: slow } },
    ],
    // the built package must be loaded once, by Node, as users load it
    server: { deps: { external: [/\/dist\//] } },
    reporters: report ? ["default", ["json", { outputFile: report }]] : ["default"],
  },
});
