// What kill_writer keeps in its store, for the program and for its test.
#pragma once

#include <array>
#include <span>
#include <stdexcept>
#include <string>

#include "sage/common/store.hpp"

namespace sage::storage {

// The last number of each thread; a record is "<thread>:<number>".
struct Counters {
    static constexpr Application application{{'k', 'i', 'l', 'l'}, 1};

    std::array<std::uint64_t, 4> last{};
    std::uint64_t sequence = 0;

    void apply(const std::string& record) {
        const std::size_t colon = record.find(':');
        const auto thread = static_cast<std::size_t>(std::stoull(record));
        const std::uint64_t number = std::stoull(record.substr(colon + 1));
        if (number != last.at(thread) + 1) {
            throw std::logic_error("a record is missing or there twice before " + record);
        }
        last.at(thread) = number;
    }
    [[nodiscard]] std::string text() const {
        std::string line;
        for (const std::uint64_t number : last) {
            line += std::to_string(number) + " ";
        }
        return line;
    }
    StoreVisitor visitor() {
        return {[this](const std::shared_ptr<const Snapshot>& snapshot) {
                    const Bytes bytes = snapshot->verified_section("counters");
                    std::string line(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                    for (std::uint64_t& number : last) {
                        std::size_t used = 0;
                        number = std::stoull(line, &used);
                        line.erase(0, used + 1);
                    }
                },
                [this](std::uint64_t number, Bytes payload) {
                    sequence = number;
                    apply({reinterpret_cast<const char*>(payload.data()), payload.size()});
                }};
    }
};

}  // namespace sage::storage
