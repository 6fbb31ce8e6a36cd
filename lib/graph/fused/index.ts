import { batchNormAct } from "./batch_norm_act.js";
import { fusedConv2d } from "./fused_conv2d.js";
import type { FusedOp } from "./fused_op.js";
import { gatedConv2d } from "./gated_conv2d.js";
import { squeezeExcite } from "./squeeze_excite.js";

/**
 * Every fused op, in rounds: an op of a later round is made of ops of earlier ones. In a round the first that matches
 * wins: where a gated branch meets a projected shortcut, the addition belongs to the gate. A new op is a file of its name
 * and a word here.
 */
export const fusedOps: readonly (readonly FusedOp[])[] = [[squeezeExcite, fusedConv2d, batchNormAct], [gatedConv2d]];
