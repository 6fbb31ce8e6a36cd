import { defineConfig } from "vitest/config";

const report = process.env.SERESNET_TEST_REPORT;

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    pool: "forks",
    // the built package must be loaded once, by Node, as users load it
    server: { deps: { external: [/\/dist\//] } },
    reporters: report ? ["default", ["json", { outputFile: report }]] : ["default"],
  },
});
