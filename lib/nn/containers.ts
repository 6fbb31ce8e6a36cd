import { ArgumentError, expected, shown } from "../errors.js";
import { checkObject } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";

/** Puts a module under a name of its own: throws ArgumentError for what is no module, and for names that Module uses. */
export function register(where: string, holder: Module, name: string, module: Module): void {
  if (!(module instanceof Module)) throw new ArgumentError(expected(where, "modules", `${typeof module} as ${name}`));
  if (name in holder) throw new ArgumentError(expected(where, "names that Module does not use", name));
  Object.defineProperty(holder, name, { value: module, enumerable: true });
}

/** Modules that are only held, in order and named 0, 1, …: what uses them calls them (PyTorch's ModuleList). */
export class ModuleList extends Module {
  /** @throws ArgumentError for an item that is no module */
  constructor(modules: Iterable<Module> = []) {
    super();
    for (const module of modules) this.append(module);
  }

  /** How many there are. */
  get length(): number {
    return Object.keys(this).length;
  }

  append(module: Module): this {
    register("ModuleList", this, `${this.length}`, module);
    return this;
  }

  /** The module at a place; negative ones count from the back. Throws ArgumentError where there is none. */
  at(index: number): Module {
    const module = this.children().at(index);
    if (!module) throw new ArgumentError(expected("ModuleList", `an index below ${this.length}`, shown(index)));
    return module;
  }

  override forward(_x: Tensor): never {
    throw new ArgumentError(expected("ModuleList", "its modules to be called, one by one", "a call of the list"));
  }

  [Symbol.iterator](): Iterator<Module> {
    return this.children()[Symbol.iterator]();
  }
}

/** Modules that are only held, by name (PyTorch's ModuleDict). */
export class ModuleDict extends Module {
  /** @throws ArgumentError for an entry that is no module, or a name that Module itself uses */
  constructor(modules: Readonly<Record<string, Module>> = {}) {
    super();
    checkObject("ModuleDict", "modules", modules);
    for (const [name, module] of Object.entries(modules)) this.set(name, module);
  }

  set(name: string, module: Module): this {
    register("ModuleDict", this, name, module);
    return this;
  }

  /** The module of a name. Throws ArgumentError where there is none. */
  get(name: string): Module {
    const module = [...this.namedChildren()].find(([key]) => key === name)?.[1];
    if (!module)
      throw new ArgumentError(expected("ModuleDict", `a name among ${Object.keys(this).join(", ")}`, shown(name)));
    return module;
  }

  override forward(_x: Tensor): never {
    throw new ArgumentError(expected("ModuleDict", "its modules to be called, one by one", "a call of the dict"));
  }
}
