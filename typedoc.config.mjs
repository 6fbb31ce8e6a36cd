// The API site: the README, the guides, and the two modules under the names people import.
import { Converter, OptionDefaults } from "typedoc";

const modules = { lib: "seresnet", models: "seresnet/models" };

/** Modules are named as they are imported, and guides by their headings. */
function names(app) {
  app.converter.on(Converter.EVENT_CREATE_DECLARATION, (_, reflection) => {
    const [, folder] = /^(\w+)(\/index)?$/.exec(reflection.name) ?? [];
    if (reflection.parent?.isProject() && folder in modules) reflection.name = modules[folder];
  });
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_, document) => {
    const [heading] = document.content;
    document.name = /^# (.+)$/m.exec(heading.text)?.[1] ?? document.name;
  });
}

/** @type {Partial<import("typedoc").TypeDocOptions>} */
export default {
  entryPoints: ["lib/index.ts", "models/index.ts"],
  tsconfig: "tsconfig.build.json",
  plugin: [names],
  readme: "README.md",
  projectDocuments: ["lib/docs/*.md", "lib/docs/examples/*.md", "CHANGELOG.md"],
  highlightLanguages: [...OptionDefaults.highlightLanguages, "python"],
  out: "build/api",
  // links that are the same in every clone, whatever its remote is
  disableGit: true,
  sourceLinkTemplate: "https://github.com/seresnet/seresnet/blob/main/{path}#L{line}",
  excludePrivate: true,
  validation: { notExported: false },
  treatWarningsAsErrors: true,
};
