import { checkpoint } from "../ops/recomputation.js";
import { checkObject } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { register } from "./containers.js";
import { Module } from "./module.js";

/**
 * Modules one after another, named 0, 1, … or, given a record, by its keys.
 *
 * @throws ArgumentError for an item that is no module, or a name that Module itself uses
 */
export class Sequential extends Module {
  /** Compute what happens inside each of its modules again in the backward pass, in place of keeping it. Default false. */
  checkpoint = false;

  constructor(...modules: readonly Module[] | readonly [Readonly<Record<string, Module>>]) {
    super();
    const [first] = modules;
    if (modules.length === 1) checkObject("Sequential", "modules", first);
    const named = modules.length === 1 && !(first instanceof Module) ? Object.entries(first) : Object.entries(modules);
    for (const [name, module] of named) register("Sequential", this, name, module);
  }

  forward(x: Tensor): Tensor {
    return this.children().reduce(
      (y, module) => (this.checkpoint ? checkpoint((input) => module.forward(input), y) : module.forward(y)),
      x,
    );
  }

  /** The modules in order. */
  [Symbol.iterator](): Iterator<Module> {
    return this.children()[Symbol.iterator]();
  }
}
