module disagfusion/tools/pause

go 1.27.3

tool disagfusion/tools/pause
