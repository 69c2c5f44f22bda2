// Runs a fuzz target where there is no libFuzzer: first its seeds, then random changes of them.
//
//   <target> CHANGES SECONDS [SEED]      tries CHANGES changed inputs, fewer when the time is over
//   <target> --seeds FOLDER              writes the seeds as files, the corpus that libFuzzer starts from
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>

#include "fuzz_target.hpp"

namespace {

using sage::fuzz::Input;
using sage::fuzz::Inputs;

std::uint8_t interesting(std::mt19937_64& random) {
    constexpr std::uint8_t values[] = {0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF};
    return random() % 2 == 0 ? values[random() % std::size(values)] : static_cast<std::uint8_t>(random());
}

Input changed(const Inputs& seeds, std::mt19937_64& random) {
    Input input = seeds[random() % seeds.size()];
    const auto changes = 1 + random() % 6;
    for (std::uint64_t i = 0; i < changes && !input.empty(); ++i) {
        const std::size_t place = random() % input.size();
        switch (random() % 8) {
            case 0: input[place] ^= static_cast<std::uint8_t>(1U << (random() % 8)); break;
            case 1: input.resize(place); break;
            case 2: input.resize(input.size() + random() % 100); break;
            case 3: input.insert(input.begin() + static_cast<std::ptrdiff_t>(place), interesting(random)); break;
            case 4: input.erase(input.begin() + static_cast<std::ptrdiff_t>(place)); break;
            case 5: {  // a piece of another one
                const Input& other = seeds[random() % seeds.size()];
                const std::size_t count = std::min(input.size() - place, other.size());
                std::copy_n(other.begin(), random() % (count + 1), input.begin() + static_cast<std::ptrdiff_t>(place));
                break;
            }
            default: input[place] = interesting(random); break;
        }
    }
    return input;
}

int run(int count, char** arguments) {
    const Inputs seeds = sage::fuzz::seeds();
    if (count == 3 && std::string_view(arguments[1]) == "--seeds") {
        std::filesystem::create_directories(arguments[2]);
        for (std::size_t i = 0; i < seeds.size(); ++i) {
            std::ofstream file(std::filesystem::path(arguments[2]) / ("seed-" + std::to_string(i)), std::ios::binary);
            file.write(reinterpret_cast<const char*>(seeds[i].data()), static_cast<std::streamsize>(seeds[i].size()));
        }
        return 0;
    }
    if (count < 3) {
        std::fputs("usage: TARGET CHANGES SECONDS [SEED] | TARGET --seeds FOLDER\n", stderr);
        return 2;
    }
    for (const Input& seed : seeds) {
        LLVMFuzzerTestOneInput(seed.data(), seed.size());
    }
    std::mt19937_64 random(count > 3 ? std::stoull(arguments[3]) : 1);
    const std::uint64_t changes_max = std::stoull(arguments[1]);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::stoul(arguments[2]));
    std::uint64_t changes = 0;
    for (; changes < changes_max && std::chrono::steady_clock::now() < end; ++changes) {
        const Input input = changed(seeds, random);
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%zu seeds and %llu changes of them\n", seeds.size(), static_cast<unsigned long long>(changes));
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return run(count, arguments);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "an exception that is no sage::Error came through: %s\n", error.what());
        return 1;
    }
}
