/** The memory blobs pass the suite of the port. They have no behaviour of their own to test. */
import { blobContract } from './contract.ts';
import { createMemoryBlobs } from './memory.ts';

blobContract(createMemoryBlobs);
