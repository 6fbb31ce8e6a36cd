import { batchNormAct } from "./batch_norm_act.js";
import { fusedConv2d } from "./fused_conv2d.js";
import type { FusedOp } from "./fused_op.js";
import { squeezeExcite } from "./squeeze_excite.js";

/** Every fused op. A new one is a file of its name and a line here. */
export const fusedOps: readonly FusedOp[] = [fusedConv2d, batchNormAct, squeezeExcite];
