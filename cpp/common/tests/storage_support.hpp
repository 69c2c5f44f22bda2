// What the tests of durable files share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/common/file.hpp"
#include "sage/common/format.hpp"

namespace sage::storage {

inline constexpr Application test_application{{'t', 'e', 's', 't'}, 3};

inline Bytes as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

inline std::string as_text(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A folder of its own for one test, removed with it.
class TemporaryDirectory {
public:
    TemporaryDirectory() {
        std::string name = (std::filesystem::temp_directory_path() / "sage-test-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) {
            throw IoError("cannot make a temporary folder", errno);
        }
        path_ = name;
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory() {
        std::error_code ignored;  // a folder that stays behind fails no test
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::string file(std::string_view name) const { return join_path(path_, name); }

private:
    std::string path_;
};

// Runs `call`, which must throw Kind; the message must have all of `parts`.
template <class Kind, class Call>
void expect_error(Call call, const std::vector<std::string>& parts) {
    try {
        call();
        FAIL() << "nothing was thrown";
    } catch (const Kind& error) {
        for (const std::string& part : parts) {
            EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
                << "'" << part << "' is not in: " << error.what();
        }
    }
}

}  // namespace sage::storage
