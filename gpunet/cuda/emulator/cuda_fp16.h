// Found in place of the toolkit header of this name.
#pragma once
#include "cuda_emulator_half.h"
