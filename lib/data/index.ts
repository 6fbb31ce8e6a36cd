export type { Augmentation, CropOptions, ErasingOptions } from "./augment.js";
export {
  type Dataset,
  type FilePictures,
  type OpenOptions,
  openDataset,
  openIdx,
  openImageFolder,
  type PixelPictures,
  splitDataset,
} from "./dataset.js";
export { fashionMnistClasses, type IdxArray, type IdxDataset, loadIdxDataset, readIdx } from "./idx.js";
export { Batch, DataLoader, type LoaderOptions } from "./loader.js";
export type { SkippedPicture } from "./make_batch.js";
