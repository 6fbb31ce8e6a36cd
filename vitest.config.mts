import { defineConfig } from "vitest/config";

const report = process.env.SERESNET_TEST_REPORT;

// Programs the tests start must print what they print for users, whatever colours this run is shown in.
delete process.env.FORCE_COLOR;

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
